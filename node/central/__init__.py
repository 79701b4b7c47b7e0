"""The configuration register of a small cluster, in one process: ``chat-node central``."""
