"""TLS on the public port: certificates from files, loaded again when told to."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from node.faults import NodeFault

if TYPE_CHECKING:
    from pathlib import Path

_REASONS: Final = {"KEY_VALUES_MISMATCH": "the key is another certificate's"}


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
        _check_readable("listen.tls_certificate", self._certificate)
        _check_readable("listen.tls_key", self._key)
        try:
            context.load_cert_chain(self._certificate, self._key, self._refuse_password)
        except ssl.SSLError as error:
            reason = _REASONS.get(error.reason or "", "one of the files is damaged, or not PEM")
            raise NodeFault(
                f"The certificate {self._certificate} with the key {self._key} can't be used: {reason} ({error})."
                " Give PEM files that belong together (listen.tls_certificate, listen.tls_key)."
            ) from error
        return context

    def _refuse_password(self) -> str:
        """OpenSSL would ask for it on the terminal, and the node would stand still."""
        raise NodeFault(f"The key {self._key} is encrypted. Give one that is not (listen.tls_key).")


def _check_readable(setting: str, path: Path) -> None:
    """OpenSSL's faults do not tell which file it could not read."""
    try:
        path.read_bytes()
    except OSError as error:
        raise NodeFault(f"{path} ({setting}) can't be read: {error.strerror}. Give another, or mend it.") from error
