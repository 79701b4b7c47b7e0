"""In which order a primary takes what an edge sends."""

from __future__ import annotations

from router.ids import RoomId
from router.serving_order import Order, Turn

PEER, ROOM, OTHER = ("e", "boot"), RoomId("s", "room"), RoomId("s", "other")


def test_numbers_are_taken_one_after_the_other() -> None:
    order = Order()
    assert [order.take(PEER, ROOM, 1, number) for number in (0, 1, 3, 1, 2, 3)] == [
        Turn.TAKEN, Turn.TAKEN, Turn.MISSING, Turn.OLD, Turn.TAKEN, Turn.TAKEN,
    ]  # fmt: skip


def test_a_session_begins_with_its_first() -> None:
    order = Order()
    assert order.take(PEER, ROOM, 1, 1) is Turn.MISSING
    assert order.take(PEER, ROOM, 1, 0) is Turn.TAKEN
    assert order.take(PEER, ROOM, 2, 1) is Turn.MISSING
    assert order.take(PEER, ROOM, 1, 1) is Turn.TAKEN
    assert order.take(PEER, ROOM, 2, 0) is Turn.TAKEN


def test_an_older_session_is_over() -> None:
    order = Order()
    assert order.take(PEER, ROOM, 2, 0) is Turn.TAKEN
    assert order.take(PEER, ROOM, 1, 0) is Turn.OLD


def test_rooms_and_lives_of_an_edge_have_sessions_of_their_own() -> None:
    order = Order()
    assert order.take(PEER, ROOM, 5, 0) is Turn.TAKEN
    assert order.take(PEER, OTHER, 1, 0) is Turn.TAKEN
    assert order.take(("e", "another boot"), ROOM, 1, 0) is Turn.TAKEN


def test_what_is_forgotten_costs_a_new_session() -> None:
    order = Order(most=2)
    for room in (ROOM, OTHER, RoomId("s", "third")):
        assert order.take(PEER, room, 1, 0) is Turn.TAKEN
    assert order.take(PEER, ROOM, 1, 1) is Turn.MISSING
    assert order.take(PEER, OTHER, 1, 1) is Turn.TAKEN
