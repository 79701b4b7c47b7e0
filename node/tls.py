"""TLS on the public port: certificates from files, loaded again when told to."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from node.faults import NodeFault

if TYPE_CHECKING:
    from pathlib import Path


class Certificates:
    """The server's TLS context.

    Args:
        certificate: PEM file with the chain.
        key: PEM file with its key.

    Raises:
        NodeFault: They can't be read, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self.context = self._load()

    def reload(self) -> None:
        """Use what the files hold now, for connections from now on; on a fault the old certificate stays in use.

        Raises:
            NodeFault: As above.
        """
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])  # the hub frames WebSocket itself; there is no HTTP/2 here
        try:
            context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            raise NodeFault(
                f"The certificate {self._certificate} with the key {self._key} can't be used: {error}."
                " Give PEM files that belong together (listen.tls_certificate, listen.tls_key)."
            ) from error
        return context
