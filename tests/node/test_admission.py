"""Who may connect, by tables: in all, from one address, of one user."""

from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.limits import Limits
from edge_config.schema import Config
from node.admission import Admission, Refused
from node.auth import Identity
from node.framing import WEB_SOCKET_TEXT, Wire
from node.gateway import Gateway
from node.metrics import Metrics
from node.protocol import JsonCodec
from node.seams import User
from node.vitals import Condition

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


@pytest.mark.parametrize(
    ("most", "most_per_address", "addresses", "expected"),
    [
        (2, 0, [A, A, A], [None, None, Refused.FULL]),
        (2, 0, [A, B, C], [None, None, Refused.FULL]),
        (9, 2, [A, A, A, B, B, B], [None, None, Refused.ADDRESS, None, None, Refused.ADDRESS]),
        (2, 1, [A, A, B, C], [None, Refused.ADDRESS, None, Refused.FULL]),
        (2, 2, [A, A, A], [None, None, Refused.FULL]),
        (0, 0, [A], [Refused.FULL]),
        (9, 1, [A, f"::ffff:{A}", f"::ffff:{B}"], [None, Refused.ADDRESS, None]),
    ],
)
def test_so_many_are_let_in(
    most: int, most_per_address: int, addresses: list[str], expected: list[Refused | None]
) -> None:
    admission = Admission(most, most_per_address)
    assert [admission.enter(address) for address in addresses] == expected
    assert admission.open == expected.count(None)


def test_who_leaves_makes_room_for_one_more() -> None:
    admission = Admission(3, 2)
    assert [admission.enter(address) for address in (A, A, B)] == [None] * 3
    admission.leave(B)
    assert admission.enter(A) is Refused.ADDRESS
    admission.leave(A)
    assert admission.enter(A) is None
    assert admission.enter(B) is None
    assert admission.enter(C) is Refused.FULL


def test_who_was_refused_is_not_counted() -> None:
    admission = Admission(9, 1)
    admission.enter(A)
    for _ in range(5):
        admission.enter(A)
    admission.leave(A)
    assert (admission.enter(A), admission.open) == (None, 1)


def test_while_draining_nobody_is_let_in_and_all_may_leave() -> None:
    admission = Admission(9, 9)
    admission.enter(A)
    admission.draining = True
    assert admission.enter(B) is Refused.DRAINING
    admission.leave(A)
    assert admission.open == 0


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", Refused.ADDRESS),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", None),
        ("::1", "::1", Refused.ADDRESS),
        ("fe80::1%2", "fe80::2%2", Refused.ADDRESS),
        ("fe80::1%2", "fe80::1%3", None),
    ],
)
def test_an_ipv6_network_of_64_bits_counts_as_one_address(first: str, second: str, expected: Refused | None) -> None:
    admission = Admission(9, 1)
    assert admission.enter(first) is None
    assert admission.enter(second) is expected
    admission.leave(first)
    assert admission.enter(first) is None


@given(st.lists(st.sampled_from([A, B, "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"])), st.integers(0, 4))
def test_when_all_have_left_nothing_is_remembered(addresses: list[str], most_per_address: int) -> None:
    admission = Admission(6, most_per_address)
    inside = [address for address in addresses if admission.enter(address) is None]
    assert admission.open == len(inside) <= 6
    for address in inside:
        admission.leave(address)
    assert (admission.open, admission._addresses) == (0, {})


def session(client: str, user: str, site: str = "default") -> User:
    """A connection, as far as the gateway counts it."""
    return cast("User", SimpleNamespace(client=client, user=user, site=site, identity=Identity(site, user)))


def gateway(most_per_user: int) -> Gateway:
    config = Config(limits=Limits(connections_per_user=most_per_user))
    return Gateway("n1", "1", config, Metrics(), Condition(), Wire(JsonCodec(1), WEB_SOCKET_TEXT), None)


@pytest.mark.parametrize(
    ("most", "sessions", "admitted"),
    [
        (2, [session("c1", "ann"), session("c2", "ann"), session("c3", "ann")], [True, True, False]),
        (1, [session("c1", "ann"), session("c2", "bob"), session("c3", "bob")], [True, True, False]),
        (1, [session("c1", "ann", "a"), session("c2", "ann", "b")], [True, True]),
        (0, [session(f"c{number}", "ann") for number in range(50)], [True] * 50),
    ],
)
def test_a_user_has_so_many_connections(most: int, sessions: list[User], admitted: list[bool]) -> None:
    here = gateway(most)
    assert [here.admit(each) is None for each in sessions] == admitted


def test_a_user_s_connection_that_ends_makes_room_and_a_refused_one_does_not() -> None:
    here = gateway(1)
    first, second, third = (session(f"c{number}", "ann") for number in range(3))
    assert here.admit(first) is None
    refusal = here.admit(second)
    assert refusal is not None
    assert "1" in refusal
    here.forget(second)
    assert here.admit(third) is not None
    here.forget(first)
    here.forget(first)
    assert here.admit(third) is None
    here.forget(third)
    assert here.tenant(third.site).vacant
    assert here._tenants == {}
