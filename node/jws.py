"""JSON Web Signatures in compact form (RFC 7515), as fast as a crowd that comes back needs them verified.

With shared secrets (HS256, HS384, HS512) all is done here: PyJWT takes some 80 us for a token, more than all the rest
of a connect together, as it looks into every character and tries to read the secret as a public key, each time. Here a
header that was seen before is not read again, and the signature is compared as text, so that no two texts are the same
token. Public keys (RS256, ES256, EdDSA) are PyJWT's business, one key and one algorithm at a time.

Which algorithm is used is the key's property. A token's header only says which keys need not be tried; so a public key
can't be used as a shared secret, and "none" is no algorithm.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

if TYPE_CHECKING:
    from collections.abc import Mapping

PublicKey: TypeAlias = "RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey"
Material: TypeAlias = "bytes | PublicKey"

HS256: Final = "HS256"
SHARED: Final[dict[str, str]] = {HS256: "sha256", "HS384": "sha384", "HS512": "sha512"}
PUBLIC: Final[dict[str, RSAAlgorithm | ECAlgorithm | OKPAlgorithm]] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "EdDSA": OKPAlgorithm(),
}
ALGORITHMS: Final = (*SHARED, *PUBLIC)
LEAST_RSA_BITS: Final = 2048  # RFC 7518, 3.3
LONGEST_KEY_ID: Final = 128
LONGEST_HEADER: Final = 4096  # characters: with a certificate; a thousand that were seen are kept, whoever sent them
MOST_RSA_BITS: Final = 8192  # verifying takes a millisecond, in which the node does nothing else
MOST_EXPONENT_BITS: Final = 33  # nearly all keys have 65537; with one as long as the key verifying takes tens of ms


class BadToken(Exception):
    """Not a token, or not one that may be accepted; the text says why."""


class BadSignature(BadToken):
    """It was not signed with this key."""


class BadKey(Exception):
    """What was given is no key for this algorithm; the text says why."""


class Header(NamedTuple):
    """What a token says of its signature, which nobody has verified.

    Attributes:
        algorithm: `alg`, any text.
        key_id: `kid`, or empty.
    """

    algorithm: str
    key_id: str


class Parts(NamedTuple):
    """A token taken apart.

    Attributes:
        header: Decoded.
        signed: What the signature is over.
        payload: As it stands there.
        signature: As it stands there.
    """

    header: Header
    signed: bytes
    payload: str
    signature: str

    def decoded(self) -> bytes:
        """The payload.

        Raises:
            BadToken: It is not base64url.
        """
        return _decode(self.payload)


class _Header(msgspec.Struct):
    alg: str
    kid: str = ""
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_header = msgspec.json.Decoder(_Header).decode


def parse(token: str) -> Parts:
    """Take a token apart; nothing of it is verified.

    Raises:
        BadToken: It is malformed.
    """
    signed, _, signature = token.rpartition(".")
    header, dot, payload = signed.partition(".")
    if not dot or "." in payload or not token.isascii():
        raise BadToken("a token has three parts with a dot between them")
    if len(header) > LONGEST_HEADER:
        raise BadToken(f"its header has {len(header)} characters, at most {LONGEST_HEADER} are taken")
    return Parts(_read_header(header), signed.encode(), payload, signature)


def matches(parts: Parts, algorithm: str, key: Material) -> bool:
    """Whether a token was signed with this key, by the key's algorithm.

    Raises:
        BadToken: Its signature is not base64url.
    """
    if isinstance(key, bytes):
        digest = hmac.digest(key, parts.signed, SHARED[algorithm])
        return hmac.compare_digest(urlsafe_b64encode(digest).rstrip(b"="), parts.signature.encode())
    signature = _decode(parts.signature)
    if urlsafe_b64encode(signature).rstrip(b"=") != parts.signature.encode():
        return False  # unused bits of the last character are set: two texts would be the same token
    verifier: Any = PUBLIC[algorithm]  # PyJWT's classes have one method, with a type of key each
    return bool(verifier.verify(parts.signed, key, signature))


def verify(token: str, key: Material, algorithm: str = HS256) -> bytes:
    """The payload of a token.

    Args:
        token: Three parts, base64url without padding.
        key: What verifies it.
        algorithm: The key's.

    Raises:
        BadSignature: It was not signed with `key`.
        BadToken: It is malformed, or asks for another algorithm.
    """
    parts = parse(token)
    if parts.header.algorithm != algorithm:
        raise BadToken(wrong_algorithm(parts.header, algorithm))
    if not matches(parts, algorithm, key):
        raise BadSignature("its signature does not match our key")
    return parts.decoded()


def wrong_algorithm(header: Header, *possible: str) -> str:
    """What to say of a token whose algorithm is no key's."""
    return f"it is signed with {header.algorithm[:32]!r}; sign it with {' or '.join(possible)}"


def read_public_key(algorithm: str, pem: str) -> PublicKey:
    """A public key in PEM.

    Raises:
        BadKey: It is none, or none for this algorithm.
    """
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey("no public key in PEM (it begins with -----BEGIN PUBLIC KEY-----)") from error
    return checked(algorithm, key)


def fingerprint(key: PublicKey) -> bytes:
    """The same for the same key, and for no other."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_jwk(jwk: Mapping[str, Any]) -> tuple[str, PublicKey]:
    """The algorithm and the public key of a JSON Web Key (RFC 7517); the key's type decides on the algorithm.

    Raises:
        BadKey: It is not for verifying signatures by one of `PUBLIC`.
    """
    algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}.get(str(jwk.get("kty")))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        given = ", ".join(f"{name} {jwk.get(name)!r}" for name in ("kty", "alg", "use"))
        raise BadKey(f"{given} is none of {', '.join(PUBLIC)}")
    try:
        return algorithm, checked(algorithm, PUBLIC[algorithm].from_jwk(dict(jwk)))
    except (InvalidKeyError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"it can't be read: {error}") from error


def checked(algorithm: str, key: object) -> PublicKey:
    """The key, if it is for the algorithm and strong enough.

    Raises:
        BadKey: It is not.
    """
    match algorithm, key:
        case "RS256", RSAPublicKey():
            if key.key_size < LEAST_RSA_BITS:
                raise BadKey(f"an RSA key of {key.key_size} bits; {LEAST_RSA_BITS} are the least")
            e = key.public_numbers().e
            if key.key_size > MOST_RSA_BITS or e.bit_length() > MOST_EXPONENT_BITS:
                most = f"{MOST_RSA_BITS} bits and an exponent of {MOST_EXPONENT_BITS}"
                raise BadKey(f"an RSA key of {key.key_size} bits whose exponent has {e.bit_length()}; at most {most}")
            return key
        case "ES256", EllipticCurvePublicKey():
            if not isinstance(key.curve, SECP256R1):
                raise BadKey(f"a key on the curve {key.curve.name}; ES256 needs P-256")
            return key
        case "EdDSA", Ed25519PublicKey():
            return key
        case _:
            raise BadKey(f"{type(key).__name__} is no public key for {algorithm}")


@lru_cache(maxsize=1024)  # a site's tokens all have the same
def _read_header(header: str) -> Header:
    try:
        given = _decode_header(_decode(header))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadToken(f"its header can't be used: {error}") from error
    if given.crit is not msgspec.UNSET or given.b64 is not msgspec.UNSET:
        raise BadToken("its header asks for extensions (crit, b64); leave them out")
    if len(given.kid) > LONGEST_KEY_ID:
        raise BadToken(f"its kid has more than {LONGEST_KEY_ID} characters")
    return Header(given.alg, given.kid)


def _decode(part: str) -> bytes:
    """Strict base64url: its alphabet only, and no padding."""
    if "+" in part or "/" in part or "=" in part:
        raise BadToken("its parts are base64, not base64url without padding")
    try:
        return a2b_base64(part.translate(_TO_BASE64) + "=" * (-len(part) % 4), strict_mode=True)
    except Base64Error as error:
        raise BadToken(f"a part of it is not base64url: {error}") from error


_TO_BASE64 = str.maketrans("-_", "+/")
