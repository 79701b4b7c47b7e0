"""The file of sites: what is in it is used as a whole or not at all."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge_config.schema import Auth
from edge_config.secret import Secret
from node import site_file
from node.site_file import KeyEntry, SiteEntry, SitesFault, change, load, read, safe_url
from node.sites import Site, digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

SECRET, OTHER = "s" * 32, "t" * 32


def pem(key: PublicKeyTypes) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


ED = pem(ed25519.Ed25519PrivateKey.generate().public_key())
P256 = pem(ec.generate_private_key(ec.SECP256R1()).public_key())
P384 = pem(ec.generate_private_key(ec.SECP384R1()).public_key())
RSA = pem(rsa.generate_private_key(65537, 2048).public_key())
WEAK_RSA = pem(rsa.generate_private_key(65537, 1024).public_key())


def key(algorithm: str = "HS256", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - values of any field
    return {"algorithm": algorithm, **fields}


def site(name: str = "a", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    return {"name": name, **fields}


def write(data_dir: Path, *sites: dict[str, Any], **fields: object) -> None:
    (data_dir / "sites.json").write_bytes(msgspec.json.encode({"version": 1, "sites": sites, **fields}))


def test_without_a_file_there_is_the_configured_site(tmp_path: Path) -> None:
    assert [s.name for s in load(tmp_path, Auth())] == ["default"]


def test_a_site_is_read_with_all_that_is_its(tmp_path: Path) -> None:
    write(
        tmp_path,
        site(
            keys=[
                key(id="k1", secret=SECRET), key("RS256", public=RSA), key("ES256", public=P256),
                key("EdDSA", public=ED, until=5),
            ],
            jwks="https://id.example/keys", audience="chat", issuer="i", leeway=7, required=["exp"], guests=True,
            origins=["https://a.example"],
            api_keys=[{"id": "x", "digest": digest_of("k" * 32), "scopes": ["publish"]}],
            webhooks=[{"id": "h", "url": "https://a.example/hook", "secret": "w" * 32, "events": ["message"]}],
        ),
    )  # fmt: skip
    (found,) = load(tmp_path, Auth())
    assert [(k.id, k.algorithm, k.until) for k in found.keys] == [
        ("k1", "HS256", float("inf")), ("", "RS256", float("inf")), ("", "ES256", float("inf")), ("", "EdDSA", 5)
    ]  # fmt: skip
    assert (found.audience, found.issuer, found.leeway, found.required) == ("chat", "i", 7, frozenset({"exp"}))
    assert (found.guests, found.origins, found.jwks) == (True, ("https://a.example",), "https://id.example/keys")
    assert found.api_keys[0].scopes == {"publish"}
    assert (found.webhooks[0].url, found.webhooks[0].events) == ("https://a.example/hook", frozenset({"message"}))


@pytest.mark.parametrize(
    ("sites", "complaint"),
    [
        ([site("a b")], "a site's name has 1 to 64 letters"),
        ([site(), site()], "two sites of one name"),
        ([site(surprise=1)], "unknown field `surprise`"),
        ([site(keys=[key(secret="short")])], "needs a secret of 32 bytes"),
        ([site(keys=[key(secret=SECRET, public=ED)])], "needs a secret of 32 bytes"),
        ([site(keys=[key("none", secret=SECRET)])], "algorithm 'none' is none of HS256"),
        ([site(keys=[key("HS256", secret=RSA, public=RSA)])], "needs a secret"),
        ([site(keys=[key("RS256", public=RSA, secret=SECRET)])], "give the public key alone"),
        ([site(keys=[key("RS256", public="hello")])], "no public key in PEM"),
        ([site(keys=[key("RS256", public=WEAK_RSA)])], "1024 bits; 2048 are the least"),
        ([site(keys=[key("RS256", public=P256)])], "is no public key for RS256"),
        ([site(keys=[key("ES256", public=P384)])], "ES256 needs P-256"),
        ([site(keys=[key("EdDSA", public=RSA)])], "is no public key for EdDSA"),
        ([site(keys=[key(id="x" * 129, secret=SECRET)])], "at most 128 characters"),
        ([site(keys=[key(id=str(n), secret=SECRET) for n in range(17)])], "17 keys; 16 are the most"),
        ([site(required=["name"])], "are none of exp, iat, jti, sub"),
        ([site(jwks="http://id.example/keys")], "no URL of https"),
        ([site(origins=["a.example"])], "can't be understood"),
        ([site(api_keys=[{"id": "x", "digest": "d", "scopes": ["all"]}])], "scopes \\['all'\\] of API key 'x'"),
        ([site("default", guests=True)], "are keys of \\[auth\\]"),
        ([site("default", origins=[])], "are keys of \\[auth\\]"),
        ([site(keys=[key(secret=SECRET)]), site("b", keys=[key(secret=SECRET)])], "'a' and 'b' have one secret"),
        ([site(keys=[key(secret=OTHER)])], "'default' and 'a' have one secret"),
        (
            [site(n, api_keys=[{"id": n, "digest": "d", "scopes": []}]) for n in ("a", "b")],
            "'a' and 'b' have one API key",
        ),
        ([site(keys=[key("EdDSA", public=ED)]), site("b", keys=[key("EdDSA", public=ED)])], "the same public key"),
        ([site(jwks="https://i.example/"), site("b", jwks="https://i.example/", audience="b")], "the same public key"),
    ],
)  # fmt: skip
def test_a_file_that_can_not_be_used_says_where_and_why(
    tmp_path: Path, sites: list[dict[str, Any]], complaint: str
) -> None:
    write(tmp_path, *sites)
    with pytest.raises(SitesFault, match=complaint) as fault:
        load(tmp_path, Auth(secret=Secret(OTHER)))
    assert str(tmp_path / "sites.json") in str(fault.value)
    assert SECRET not in str(fault.value)
    assert OTHER not in str(fault.value)


def test_sites_of_one_identity_provider_differ_in_audience_or_issuer(tmp_path: Path) -> None:
    write(tmp_path, *(site(n, jwks="https://i.example/", audience=n) for n in ("a", "b", "c")))
    assert len(load(tmp_path, Auth())) == 3


@pytest.mark.parametrize("fields", [{"jwks": "https://i.example/"}, {"keys": [key("EdDSA", public=ED)]}])
def test_one_site_with_public_keys_needs_neither(tmp_path: Path, fields: dict[str, Any]) -> None:
    write(tmp_path, site(**fields))
    assert len(load(tmp_path, Auth())) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version":2,"sites":[]}', '{"sites":{}}', "\xff", "[" * 2000])
def test_what_is_no_file_of_sites_is_a_fault(tmp_path: Path, content: str) -> None:
    (tmp_path / "sites.json").write_text(content, encoding="latin-1")
    with pytest.raises(SitesFault, match=r"sites\.json"):
        load(tmp_path, Auth())


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_file, "MOST_BYTES", 10)
    write(tmp_path, site())
    with pytest.raises(SitesFault, match="larger than 10 bytes"):
        load(tmp_path, Auth())


def test_a_change_is_written_for_its_owner_only(tmp_path: Path) -> None:
    with change(tmp_path / "data", Auth()) as content:
        content.sites.append(SiteEntry("a", [KeyEntry("HS256", "k", SECRET)]))
    path = tmp_path / "data" / "sites.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [s.name for s in load(path.parent, Auth())] == ["a"]
    assert {entry.name for entry in path.parent.iterdir()} == {"sites.json", "sites.lock"}


def test_a_change_that_could_not_be_used_is_not_written(tmp_path: Path) -> None:
    write(tmp_path, site(guests=True))
    before = (tmp_path / "sites.json").read_bytes()
    with pytest.raises(SitesFault, match="two sites"), change(tmp_path, Auth()) as content:
        content.sites.append(SiteEntry("a"))
    assert (tmp_path / "sites.json").read_bytes() == before
    with pytest.raises(ZeroDivisionError), change(tmp_path, Auth()) as content:
        content.version = 1 // len(content.sites[1:])
    assert read(tmp_path).find("a") is not None


def test_a_directory_that_can_not_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SitesFault, match="can't be written"), change(tmp_path / "file", Auth()):
        raise AssertionError("the block must not begin")


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://id.example/keys", True),
        ("https://id.example:8443/keys?x=1", True),
        ("http://localhost:8080/keys", True),
        ("http://127.0.0.1/keys", True),
        ("http://[::1]/keys", True),
        ("http://id.example/keys", False),
        ("http://127.0.0.1.evil.example/", False),
        ("http://localhost@evil.example/", False),
        ("https://user@id.example/", False),
        ("ftp://localhost/", False),
        ("file:///etc/passwd", False),
        ("https:///keys", False),
        ("https://a.example/\nkeys", False),
        ("https://a.example:x/", False),
        ("https://[a/", False),
    ],
)
def test_only_what_others_can_not_forge_is_fetched(url: str, safe: bool) -> None:
    assert safe_url(url) is safe


def test_a_site_of_the_file_is_no_other_than_what_it_says(tmp_path: Path) -> None:
    write(tmp_path, site())
    assert list(load(tmp_path, Auth())) == [Site("a")]


# -- writers -----------------------------------------------------------------------------------------------------

KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from edge_config.schema import Auth
from node import site_file
from node.site_file import SiteEntry, change

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(Path if sys.argv[2] == "rename" else os, sys.argv[2], die)
with change(Path(sys.argv[1]), Auth()) as content:
    content.sites.append(SiteEntry("killed", guests=True))
"""


@pytest.mark.parametrize("moment", ["fsync", "rename"])
def test_a_writer_that_is_killed_leaves_the_file_as_it_was_and_the_next_one_writes(tmp_path: Path, moment: str) -> None:
    add(tmp_path, "a")
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, tmp_path, moment], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == ["a"]
    assert len(list(tmp_path.glob(".sites.json.*"))) == 1, "it was killed in the midst of writing"
    add(tmp_path, "b")
    assert names(tmp_path) == ["a", "b"]
    assert not list(tmp_path.glob(".sites.json.*")), "what it left behind has secrets in it"


def test_two_writers_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add(tmp_path, f"s{number}"), range(40)))
    assert sorted(names(tmp_path)) == sorted(f"s{number}" for number in range(40))


def test_a_writer_that_does_not_end_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_file, "LOCK_SECONDS", 0.05)
    with site_file.locked(tmp_path), pytest.raises(SitesFault, match=r"Another command .* fuser .*sites\.lock"):
        add(tmp_path, "a")
    add(tmp_path, "a")


def add(folder: Path, name: str) -> None:
    with change(folder, Auth()) as content:
        content.sites.append(SiteEntry(name, guests=True))


def names(folder: Path) -> list[str]:
    return [site.name for site in site_file.read(folder).sites]
