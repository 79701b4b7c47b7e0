"""Who may connect."""

from __future__ import annotations

import pytest

from edge_config.keys import decode_key, new_pair
from router.transport_statistics import Refusal, Refusals
from router.zap import DOMAIN, LATER, Zap, user_of, users_of

EU, US = new_pair().public, new_pair().public


def request(
    mechanism: bytes = b"CURVE", *credentials: bytes, address: bytes = b"10.0.0.7", domain: bytes = DOMAIN
) -> list[bytes]:
    return [b"1.0", b"7", domain, address, b"whatever it says", mechanism, *credentials]


def test_a_key_of_the_list_is_let_in_as_its_node() -> None:
    refusals = Refusals()
    zap = Zap({"eu": EU, "us": US}, refusals, anywhere=False)
    answer = zap.answer(request(b"CURVE", decode_key(US)))
    assert answer == [b"1.0", b"7", b"200", b"OK", b"us " + US, b""]
    assert users_of({"us": US}) == {user_of("us", US): "us"}
    assert refusals.counts == {}


def test_another_key_is_refused_and_shown_to_the_operator() -> None:
    refusals = Refusals()
    zap = Zap({"eu": EU}, refusals, anywhere=True)
    assert zap.answer(request(b"CURVE", decode_key(US)))[2:5] == [LATER, b"not allowed", b""]
    assert refusals.counts == {Refusal.KEY: 1}
    assert US.decode() in refusals.reasons[Refusal.KEY]
    assert "10.0.0.7" in refusals.reasons[Refusal.KEY]


def test_the_list_can_be_replaced() -> None:
    zap = Zap({"eu": EU}, Refusals(), anywhere=False)
    zap.allow({"us": US})
    assert zap.answer(request(b"CURVE", decode_key(US)))[2] == b"200"
    assert zap.answer(request(b"CURVE", decode_key(EU)))[2] == LATER


@pytest.mark.parametrize(
    "frames",
    [
        request(b"NULL"), request(b"PLAIN", b"eu", b"secret"), request(b"CURVE"), request(b"CURVE", b"a", b"b"),
    ],
)  # fmt: skip
def test_with_keys_nobody_comes_in_without_one(frames: list[bytes]) -> None:
    assert Zap({"eu": EU}, Refusals(), anywhere=True).answer(frames)[2] == LATER


@pytest.mark.parametrize(
    ("address", "anywhere", "code"),
    [
        (b"127.0.0.1", False, b"200"), (b"::1", False, b"200"), (b"::ffff:127.0.0.1", False, b"200"),
        (b"10.0.0.7", False, LATER), (b"", False, LATER), (b"\xff", False, LATER), (b"10.0.0.7", True, b"200"),
    ],
)  # fmt: skip
def test_without_keys_this_machine_comes_in_and_others_if_that_was_asked_for(
    address: bytes, anywhere: bool, code: bytes
) -> None:
    refusals = Refusals()
    answer = Zap(None, refusals, anywhere=anywhere).answer(request(b"NULL", address=address))
    assert answer[2] == code
    assert answer[4] == b""
    assert refusals.counts[Refusal.PLAIN] == (code == LATER)


def test_without_keys_a_key_is_no_use() -> None:
    assert Zap(None, Refusals(), anywhere=True).answer(request(b"CURVE", decode_key(EU)))[2] == LATER


@pytest.mark.parametrize(
    "frames",
    [[], [b"1.0"], [b"2.0", b"7", b"", b"", b"", b"NULL"], [b"1.0", b"7", b"", b""], request(domain=b"another")],
)
def test_what_is_no_request_is_answered_all_the_same(frames: list[bytes]) -> None:
    answer = Zap({}, Refusals(), anywhere=False).answer(frames)
    assert (len(answer), answer[2]) == (6, b"500")
