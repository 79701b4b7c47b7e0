"""The keys of nodes: a node's own pair, and the public keys of the nodes that it lets in.

They are those of CurveZMQ (X25519), written as ZeroMQ does: 32 bytes as 40 characters of Z85. A directory holds them:

* ``node.key``: the node's secret, which only its owner may read. Whoever has it can speak as that node.
* ``allowed.toml``: ``NAME = "PUBLIC KEY"`` for each node that may connect. It is read again while the node runs.
"""

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge_config.secret import Secret
from edge_config.setting import NAME

SECRET_FILE: Final = "node.key"  # noqa: S105 (a name)
ALLOWED_FILE: Final = "allowed.toml"
KEY_BYTES: Final = 32
KEY_CHARACTERS: Final = 40
MOST_FILE_BYTES: Final = 1 << 20  # thousands of nodes; a file beyond it is something else
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

_DIGITS: Final = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"  # RFC 32
_VALUES: Final[Mapping[int, int]] = {digit: value for value, digit in enumerate(_DIGITS)}


class KeyFault(Exception):
    """A file of keys can't be used; names the file, what is wrong with it, and the mend."""


@dataclass(slots=True, frozen=True)
class KeyPair:
    """The keys of a node.

    Attributes:
        public: What other nodes know it by; 40 characters of Z85.
        secret: As long.
    """

    public: bytes
    secret: Secret = field(compare=False)


def new_pair() -> KeyPair:
    """A new pair, whose public key begins with a letter or digit, so that no command takes it for a flag."""
    while True:
        pair = pair_of(encode_key(X25519PrivateKey.generate().private_bytes_raw()).decode())
        if pair.public[:1].isalnum():
            return pair


def pair_of(secret: str) -> KeyPair:
    """The pair of a secret key.

    Raises:
        ValueError: It is no key.
    """
    public = X25519PrivateKey.from_private_bytes(decode_key(secret)).public_key().public_bytes_raw()
    return KeyPair(encode_key(public), Secret(secret))


def encode_key(key: bytes) -> bytes:
    """Bytes, a multiple of 4 of them, as Z85 (ZeroMQ RFC 32)."""
    text = bytearray()
    for at in range(0, len(key), 4):
        value = int.from_bytes(key[at : at + 4])
        text += bytes(_DIGITS[value // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return bytes(text)


def decode_key(text: str | bytes) -> bytes:
    """The 32 bytes of a key.

    Raises:
        ValueError: It is none.
    """
    digits = text if isinstance(text, bytes) else text.encode()
    if len(digits) != KEY_CHARACTERS or any(digit not in _VALUES for digit in digits):
        raise ValueError("not a key: 40 characters as chat-node keys show prints them")
    key = bytearray()
    for at in range(0, KEY_CHARACTERS, 5):
        value = 0
        for digit in digits[at : at + 5]:
            value = value * 85 + _VALUES[digit]
        if value >= 1 << 32:
            raise ValueError("not a key: mistyped, as five of its characters stand for more than four bytes")
        key += value.to_bytes(4)
    return bytes(key)


def read_pair(folder: Path) -> KeyPair:
    """A node's own pair.

    Raises:
        KeyFault: It is not there, others can read it, or it is none.
    """
    path = folder / SECRET_FILE
    text = _read(path)
    if text is None:
        raise KeyFault(f"There is no key at {path}. Make one: chat-node keys new.")
    if path.stat().st_mode & _OTHERS:
        raise KeyFault(
            f"Others than its owner may read {path}. If nobody has: chmod 600 {path}; else make another key."
        )
    content = _toml(path, text)
    secret = content.get("secret")
    if not isinstance(secret, str):
        raise KeyFault(f"{path} has no secret. Restore it from a copy, or make another key: chat-node keys new.")
    try:
        return pair_of(secret)
    except ValueError:
        raise KeyFault(
            f"The secret in {path} is no key. Restore it from a copy, or make another: chat-node keys new."
        ) from None


def written_pair(pair: KeyPair) -> bytes:
    """The content of the secret's file."""
    lines = (
        "# The secret key of a node of chat-node. Whoever has it can speak as this node: keep it to yourself.",
        f"# The public key is {pair.public.decode()}",
        f'secret = "{pair.secret.reveal()}"',
    )
    return ("\n".join(lines) + "\n").encode()


def read_allowed(folder: Path) -> dict[str, bytes]:
    """The public key of each node that may connect; none if there is no file.

    Raises:
        KeyFault: The file can't be used; not even a part of it then is.
    """
    path = folder / ALLOWED_FILE
    text = _read(path)
    allowed: dict[str, bytes] = {}
    for node, key in _toml(path, text or "").items():
        if not NAME.accepts(node):
            raise KeyFault(f"{path}: {node!r} is no node's name. Give {NAME.described}.")
        allowed[node] = _allowed_key(path, node, key)
    owners: dict[bytes, str] = {}
    for node, public in allowed.items():
        if (other := owners.setdefault(public, node)) != node:
            raise KeyFault(
                f"{path}: {other} and {node} have the same key. Make a key for each node: chat-node keys new."
            )
    return allowed


def written_allowed(allowed: Mapping[str, bytes]) -> bytes:
    """The content of the file of the allowed."""
    lines = [f'{node} = "{key.decode()}"' for node, key in sorted(allowed.items())]
    return "\n".join(['# Nodes that may connect: NAME = "PUBLIC KEY".', *lines, ""]).encode()


def _allowed_key(path: Path, node: str, key: object) -> bytes:
    try:
        if isinstance(key, str):
            decode_key(key)
            return key.encode()
    except ValueError:
        pass
    raise KeyFault(f"{path}: what is given for {node} is no public key. Give what chat-node keys show prints there.")


def _read(path: Path) -> str | None:
    """The file's text; None: there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_FILE_BYTES + 1)
        if len(content) > MOST_FILE_BYTES:
            raise KeyFault(f"{path} is longer than {MOST_FILE_BYTES} bytes, so it is no file of keys.")
        return content.decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFault(f"{path} can't be read: {os.strerror(error.errno or 0)}.") from error
    except UnicodeDecodeError:
        raise KeyFault(f"{path} is not text. Restore it from a copy.") from None


def _toml(path: Path, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise KeyFault(f"{path} is not as chat-node keys writes it. Restore it from a copy.") from None  # may be secret
