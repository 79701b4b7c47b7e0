"""What waits for a peer is bounded, in order, and not for ever."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from router.channels import Channel
from router.outbox import MAX_URGENT, URGENT, Outbox

CAPACITY, PATIENCE = 100, 50


def emptied(outbox: Outbox) -> list[bytes]:
    frames = []
    while (frame := outbox.first()) is not None:
        frames.append(frame)
        outbox.pop()
    return frames


def test_frames_leave_in_order_and_urgent_ones_first() -> None:
    outbox = Outbox(CAPACITY, PATIENCE)
    assert not outbox
    for channel, frame in ((Channel.EDGE, b"1"), (Channel.MEMBERSHIP, b"2"), (Channel.EDGE, b"3")):
        assert outbox.push(channel, frame, 0)
    assert outbox
    assert outbox.push(Channel.REGISTER, b"4", 0)
    assert outbox.waiting == 4
    assert emptied(outbox) == [b"2", b"4", b"1", b"3"]
    assert not outbox
    assert outbox.waiting == 0


def test_what_does_not_fit_is_refused_until_there_is_room() -> None:
    outbox = Outbox(CAPACITY, PATIENCE)
    assert outbox.push(Channel.EDGE, bytes(60), 0)
    assert outbox.push(Channel.EDGE, bytes(40), 0)
    assert not outbox.push(Channel.EDGE, b"x", 0)
    outbox.pop()
    assert outbox.push(Channel.EDGE, bytes(60), 0)
    assert not outbox.push(Channel.EDGE, b"x", 0)


def test_urgent_frames_have_a_bound_of_their_own() -> None:
    outbox = Outbox(CAPACITY, PATIENCE)
    assert outbox.push(Channel.EDGE, bytes(CAPACITY), 0)
    assert outbox.push(Channel.MEMBERSHIP, bytes(MAX_URGENT), 0)
    assert not outbox.push(Channel.REGISTER, b"x", 0)


def test_a_frame_longer_than_the_bound_goes_alone() -> None:
    outbox = Outbox(CAPACITY, PATIENCE)
    assert outbox.push(Channel.EDGE, bytes(CAPACITY + 1), 0)
    assert not outbox.push(Channel.EDGE, b"x", 0)
    assert emptied(outbox) == [bytes(CAPACITY + 1)]


def test_what_has_waited_for_too_long_goes() -> None:
    outbox = Outbox(CAPACITY, PATIENCE)
    for now, channel in ((0, Channel.EDGE), (0, Channel.MEMBERSHIP), (1, Channel.EDGE), (60, Channel.EDGE)):
        outbox.push(channel, b"%d" % now, now)
    assert outbox.expire(PATIENCE) == 0
    assert outbox.expire(PATIENCE + 1) == 2
    assert outbox.expire(PATIENCE + 2) == 1
    assert outbox.waiting == 2
    assert outbox.clear() == 1
    assert outbox.waiting == 0
    assert outbox.clear() == 0


@given(st.lists(st.tuples(st.sampled_from(Channel), st.integers(0, 60), st.booleans())))
def test_the_frames_of_a_channel_are_never_reordered_and_the_bound_holds(
    steps: list[tuple[Channel, int, bool]],
) -> None:
    outbox = Outbox(CAPACITY, PATIENCE)
    pushed: defaultdict[Channel, list[bytes]] = defaultdict(list)
    left: defaultdict[Channel, list[bytes]] = defaultdict(list)
    for number, (channel, size, pops) in enumerate(steps):
        frame = bytes((channel,)) + number.to_bytes(4) + bytes(size)
        if outbox.push(channel, frame, 0):
            pushed[channel].append(frame)
        if pops and (first := outbox.first()) is not None:
            left[Channel(first[0])].append(first)
            outbox.pop()
        waiting = [frame for one, frames in pushed.items() for frame in frames[len(left[one]) :]]
        assert outbox.waiting == sum(map(len, waiting))
        assert sum(len(frame) for frame in waiting if Channel(frame[0]) not in URGENT) <= CAPACITY
    for frame in emptied(outbox):
        left[Channel(frame[0])].append(frame)
    assert left == pushed
