"""The edge node: client sockets, the client protocol, HTTP, and the composition of a process."""
