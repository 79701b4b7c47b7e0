"""Public keys that sites publish, from a real HTTP server that is slow, down, huge or changes its mind."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from edge_config.schema import Auth
from node import jwks, jws
from node.auth import Authenticator, InvalidToken, KeysAwaited
from node.jwks import KeySetFault, KeySets, fetch, read_set
from node.origins import Arrival
from node.sites import Site, Sites

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
QUICK = Auth(jwks_retry_seconds=0.05, jwks_fetch_seconds=0.5)
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(private: Any, key_id: str, **fields: object) -> dict[str, object]:  # noqa: ANN401 - any private key
    made: Any = OKPAlgorithm
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        made = RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else ECAlgorithm
    return {**json.loads(made.to_jwk(private.public_key())), "kid": key_id, **fields}


def body(*keys: Mapping[str, object]) -> bytes:
    return json.dumps({"keys": keys}).encode()


class Server:
    """Answers every request with `answer`, or with nothing; counts them."""

    def __init__(self) -> None:
        self.answer: bytes | None = b""
        self.requests = 0
        self.url = ""

    def give(self, content: bytes, status: str = "200 OK") -> None:
        self.answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            self.requests += 1
            if self.answer is None:
                await trio.sleep_forever()
            else:
                await stream.send_all(self.answer)


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, server.serve, 0)
        server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/keys?x=1"
        with trio.fail_after(30):
            yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(url: str, bounds: Auth = QUICK) -> AsyncIterator[KeySets]:
    async with trio.open_nursery() as nursery:
        sets = KeySets(lambda: [url], bounds)
        nursery.start_soon(sets.run)
        yield sets
        nursery.cancel_scope.cancel()


async def found(sets: KeySets, url: str, key_id: str, algorithm: str) -> list[str]:
    """Ask until there is an answer; gives the key ids."""
    while (keys := sets.find(url, key_id, algorithm)) is None:  # noqa: ASYNC110 - as its clients do
        await trio.sleep(0.01)
    return [key.id for key in keys]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "TICK_SECONDS", 0.01)


@pytest.mark.parametrize(("private", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")])
async def test_a_token_is_verified_as_soon_as_the_set_is_there(private: Any, algorithm: str) -> None:  # noqa: ANN401
    async with serving() as server:
        server.give(body(jwk(private, "k")))
        gate: Authenticator
        sets = KeySets(lambda: [server.url], QUICK)
        gate = Authenticator(Sites([Site("a", jwks=server.url)]), b"g", key_sets=sets)
        token = jwt.encode({"sub": "u"}, private, algorithm, {"kid": "k"})
        with pytest.raises(KeysAwaited):
            gate.connection(token, "")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sets.run)
            await found(sets, server.url, "k", algorithm)
            nursery.cancel_scope.cancel()
        assert gate.connection(token, "").user == "u"
        with pytest.raises(InvalidToken, match="does not match"):
            gate.connection(token[:-8] + "AAAAAAAA", "")
        with pytest.raises(InvalidToken):  # a shared secret by the name of a public key
            gate.connection(jwt.encode({"sub": "u"}, "x" * 32, "HS256", {"kid": "k"}), "")


async def test_a_rotated_key_is_found_and_one_that_is_not_there_is_given_up() -> None:
    async with serving() as server:
        server.give(body(jwk(ED, "old")))
        async with running(server.url) as sets:
            assert await found(sets, server.url, "old", "EdDSA") == ["old"]
            server.give(body(jwk(ED, "new")))
            assert await found(sets, server.url, "new", "EdDSA") == ["new"]
            assert await found(sets, server.url, "old", "EdDSA") == []
            assert await found(sets, server.url, "never", "EdDSA") == []


async def test_an_outage_leaves_the_last_good_set_and_hope_for_the_rest() -> None:
    async with serving() as server:
        server.give(body(jwk(ED, "k")))
        async with running(server.url) as sets:
            await found(sets, server.url, "k", "EdDSA")
            for content, status in ((b"oops", "500 Internal Server Error"), (b"{}", "200 OK"), (b"[", "200 OK")):
                server.give(content, status)
                before = server.requests
                while server.requests < before + 2:
                    assert sets.find(server.url, "unknown", "EdDSA") is None, "nobody knows by now"
                    await trio.sleep(0.01)
                assert await found(sets, server.url, "k", "EdDSA") == ["k"]


async def test_unknown_keys_do_not_make_us_flood_a_server() -> None:
    async with serving() as server:
        server.give(body(jwk(ED, "k")))
        async with running(server.url, Auth(jwks_retry_seconds=60.0)) as sets:
            await found(sets, server.url, "k", "EdDSA")
            for number in range(2000):
                assert sets.find(server.url, f"x{number}", "EdDSA") is None
            await trio.sleep(0.1)
            assert server.requests == 1
            assert len(sets._sets[server.url].unknown) == jwks.MOST_UNKNOWN


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    async with serving() as server:
        server.answer = None
        with pytest.raises(KeySetFault, match="no answer within"):
            await fetch(server.url, 0.5)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", "status is 302"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000, "more than 262144 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "RemoteProtocolError"),
        (b"nonsense\r\n\r\n", "RemoteProtocolError"),
        (b"", "closed|RemoteProtocolError"),
    ],
)
async def test_a_bad_answer_is_a_fault(answer: bytes, complaint: str) -> None:
    async with serving() as server:
        server.answer = answer
        with pytest.raises(KeySetFault, match=complaint):
            await fetch(server.url, 0.5)


async def test_a_server_that_is_down_is_a_fault() -> None:
    async with serving() as server:
        url = server.url
    with pytest.raises(KeySetFault, match="OSError"):
        await fetch(url, 0.5)


def test_keys_of_no_use_are_passed_over() -> None:
    shared = {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "s"}
    weak = jwk(rsa.generate_private_key(65537, 1024), "weak")
    p384 = jwk(ec.generate_private_key(ec.SECP384R1()), "p384")
    others = (
        shared,
        weak,
        p384,
        jwk(RSA, "enc", use="enc"),
        jwk(RSA, "pss", alg="PS256"),
        {"kty": 1},
        jwk(RSA, "x" * 200),
    )
    assert [(k.id, k.algorithm) for k in read_set(body(*others, jwk(RSA, "r"), jwk(EC, "e"), jwk(ED, "d")))] == [
        ("r", "RS256"), ("e", "ES256"), ("d", "EdDSA")
    ]  # fmt: skip
    with pytest.raises(KeySetFault, match="has no key for"):
        read_set(body(*others))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"keys":3}', b'{"keys":[1,"a",null]}', b"[" * 3000, b"\xff"])
def test_what_is_no_set_is_a_fault(content: bytes) -> None:
    with pytest.raises(KeySetFault):
        read_set(content)


@pytest.mark.parametrize("url", ["https://a..b/", "http://127.0.0.1:1/ \u00e9", "https://" + "a" * 70 + ".example/"])
async def test_an_address_that_can_not_be_is_a_fault(url: str) -> None:
    with pytest.raises(KeySetFault):
        await fetch(url, 0.5)


VALUES = (
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["AQAB", "P-256", "Ed25519", "sig", "AA", "A"])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([RSA, EC, ED]),
    st.dictionaries(st.sampled_from(["kty", "crv", "n", "e", "x", "y", "kid", "use", "alg", "d"]), VALUES),
)
def test_a_strange_key_is_passed_over(private: Any, changes: dict[str, Any]) -> None:  # noqa: ANN401
    with suppress(KeySetFault):
        assert [key.algorithm in jws.PUBLIC for key in read_set(body({**jwk(private, "k"), **changes}))] == [True]


async def test_what_goes_wrong_with_one_set_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def broken(url: str, _: float) -> bytes:
        asked.append(url)
        await trio.lowlevel.checkpoint()
        if url.endswith("bad"):
            raise RuntimeError(url)
        return body(jwk(ED, "k"))

    monkeypatch.setattr(jwks, "fetch", broken)
    sets = KeySets(lambda: ["https://bad", "https://good"], QUICK)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sets.run)
        with trio.fail_after(20):
            while asked.count("https://bad") < 2:  # noqa: ASYNC110 - the second look is what counts
                await trio.sleep(0.01)
            assert await found(sets, "https://good", "k", "EdDSA") == ["k"]
        nursery.cancel_scope.cancel()


async def test_slow_servers_do_not_keep_the_sets_of_others_away() -> None:
    async with serving() as slow, serving() as quick:
        slow.answer = None
        quick.give(body(jwk(ED, "k")))
        urls = [f"{slow.url}&site={number}" for number in range(3)] + [quick.url]
        sets = KeySets(lambda: urls, Auth(jwks_retry_seconds=0.05, jwks_fetch_seconds=60.0, jwks_fetches=4))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sets.run)
            assert await found(sets, quick.url, "k", "EdDSA") == ["k"]
            nursery.cancel_scope.cancel()


def test_a_token_of_one_of_very_many_sites_with_sets_has_to_say_whose_it_is() -> None:
    sites = Sites([Site(f"s{number}", jwks=f"https://s{number}.example/") for number in range(17)])
    sets = KeySets(lambda: (), QUICK)
    gate = Authenticator(sites, b"g", key_sets=sets)
    for site in sites:
        sets.find(site.jwks, "k", "EdDSA")
        sets._sets[site.jwks].complete = float("inf")  # fetched, and the key is in none of them
    token = jwt.encode({"sub": "u"}, ED, "EdDSA", {"kid": "k"})
    with pytest.raises(InvalidToken, match="its site is not clear"):
        gate.connection(token, "")
    with pytest.raises(InvalidToken, match="no key with kid"):
        gate.connection(token, "", Arrival("s16"))
