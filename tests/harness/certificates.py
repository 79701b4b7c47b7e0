"""Certificates that a test's node and clients trust, and nobody else."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from pathlib import Path

LIFE: Final = datetime.timedelta(hours=1)  # before and after now


class Identity(NamedTuple):
    """Files with a self-signed certificate for 127.0.0.1 and with its key, in PEM."""

    certificate: Path
    key: Path


def trust(identity: Identity) -> ssl.SSLContext:
    """For a client that reads in one thread and writes in another, as that of `websockets.sync` does.

    OpenSSL allows no two threads in one connection. In TLS 1.3 a server's session tickets come after the handshake, and
    a write beside the read that takes them may never be sent; in TLS 1.2 nothing comes by itself.
    """
    context = ssl.create_default_context(cafile=str(identity.certificate))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def make_identity(folder: Path, name: str, *, password: bytes = b"") -> Identity:
    """Make a certificate and write it.

    Args:
        folder: Where to; it is there.
        name: The certificate's common name, and what its files' names begin with.
        password: Encrypts the key; empty: it is not encrypted.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LIFE)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    made = Identity(folder / f"{name}.crt", folder / f"{name}.key")
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return made
