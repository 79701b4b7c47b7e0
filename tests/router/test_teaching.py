"""A teacher and a pupil over a link that loses, repeats and delays, and with logs; and what ends a course."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import snapshot, teaching_wire
from router.completions import SnapshotRead, SnapshotRefused, SnapshotTaken
from router.errors import CorruptEntry, StorageFault
from router.events import ShardTail
from router.ids import MemberId
from router.teaching import PATIENCE_MS, RESEND_MS, WINDOW, Pupil, PupilEffects, Teacher, TeacherEffects, Topic
from router.teaching_wire import Lesson, Taken

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARD, EPOCH, LSN = 3, 7, 40
TEACHER, PUPIL = MemberId("n1", "d1"), MemberId("n2", "d2")
TAIL = ShardTail(SHARD, LSN, bytes(16), 7, LSN, bytes(16))


def parts_of(count: int) -> list[bytes]:
    middle = [snapshot.encode(snapshot.Keys(n, b"")) for n in range(count)]
    return [snapshot.encode(snapshot.Begin(SHARD, LSN, bytes(16))), *middle, snapshot.encode(snapshot.End())]


class School:
    """Both sides, and a link as bad as it is said to be."""

    def __init__(self, parts: Sequence[bytes], seed: int, *, loss: float = 0.0, repeat: float = 0.0) -> None:
        self.random, self.loss, self.repeat = random.Random(seed), loss, repeat
        self.now = 0
        self.parts = list(parts)
        self.read = 0
        self.teacher, self.pupil = Teacher(), Pupil(lambda _shard, _epoch: True)
        self.link: list[tuple[MemberId, bytes]] = []
        self.reads: deque[Topic] = deque()
        self.imports: deque[tuple[bytes, object]] = deque()
        self.disk: list[bytes] = []
        self.taught: list[tuple[Topic, int]] = []
        self.given_up: list[str] = []
        self.learned: list[ShardTail] = []
        self.ends = 0

    def send(self, to: MemberId, message: Lesson | Taken) -> None:
        copies = 0 if self.random.random() < self.loss else 1 + (self.random.random() < self.repeat)
        self.link += [(to, teaching_wire.encode(message))] * copies

    def perform(self) -> None:
        mine, self.teacher.effects = self.teacher.effects, TeacherEffects()
        its, self.pupil.effects = self.pupil.effects, PupilEffects()
        self.reads += mine.reads
        self.ends += len(mine.ends)
        self.taught += mine.taught
        self.given_up += [why for _, why in mine.given_up]
        self.learned += its.learned
        self.imports += [(part, token) for _, part, token in its.imports]
        sends: list[tuple[MemberId, Lesson | Taken]] = [*mine.sends, *its.sends]
        for to, message in sends:
            self.send(to, message)

    def step(self) -> None:
        """One thing happens, whichever."""
        self.now += self.random.randrange(RESEND_MS // 10)
        choices = [self.tick]
        choices += [self.deliver] * min(3, len(self.link)) + [self.export] * len(self.reads)
        choices += [self.write] * bool(self.imports)
        self.random.choice(choices)()
        self.perform()

    def tick(self) -> None:
        self.teacher.tick(self.now)

    def deliver(self) -> None:
        to, data = self.link.pop(self.random.randrange(len(self.link)))
        message = teaching_wire.decode(data)
        if isinstance(message, Lesson):
            assert to == PUPIL
            self.pupil.receive(TEACHER, message)
        else:
            self.teacher.receive(PUPIL, message, self.now)

    def export(self) -> None:
        topic = self.reads.popleft()
        part = self.parts[self.read] if self.read < len(self.parts) else b""
        self.read += 1
        self.teacher.part_read(SnapshotRead(topic, part), self.now)

    def write(self) -> None:
        part, token = self.imports.popleft()
        if isinstance(snapshot.decode(part), snapshot.Begin):
            self.disk.clear()
        self.disk.append(part)
        is_last = isinstance(snapshot.decode(part), snapshot.End)
        self.pupil.imported(SnapshotTaken(token, TAIL if is_last else None, (len(self.disk),)))


def topic(serial: int = 1) -> Topic:
    return Topic(SHARD, PUPIL, serial)


@given(
    count=st.sampled_from([0, 1, WINDOW, 30]), seed=st.integers(0, 1 << 30), loss=st.sampled_from([0.0, 0.05, 0.15]),
    repeat=st.sampled_from([0.0, 0.5]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_pupil_has_all_parts_in_order_whatever_the_link_does(
    count: int, seed: int, loss: float, repeat: float
) -> None:
    school = School(parts_of(count), seed, loss=loss, repeat=repeat)
    school.teacher.teach(topic(), EPOCH, 0)
    school.perform()
    for _ in range(20_000):
        if school.taught:
            break
        school.step()
        assert school.disk == school.parts[: len(school.disk)]
        assert len(school.link) < 10_000
    assert school.taught == [(topic(), LSN)]
    assert school.disk == school.parts
    assert school.learned == [TAIL]
    assert (school.given_up, school.ends) == ([], 1)
    assert not school.pupil.learns(SHARD)


@given(seed=st.integers(0, 1 << 30), steps=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_a_course_that_begins_again_takes_the_place_of_the_one_before(seed: int, steps: int) -> None:
    school = School(parts_of(20), seed, loss=0.1, repeat=0.3)
    school.teacher.teach(topic(), EPOCH, 0)
    school.perform()
    for _ in range(steps):
        school.step()
    school.reads.clear()
    school.read = 0
    again = topic(2)
    school.taught.clear()
    school.teacher.teach(again, EPOCH, school.now)
    school.perform()
    for _ in range(20_000):
        if school.taught:
            break
        school.step()
    assert school.taught == [(again, LSN)]
    assert school.disk == school.parts


def begun(parts: int = 20) -> School:
    """A course of which some parts are on disk."""
    school = School(parts_of(parts), 1)
    school.teacher.teach(topic(), EPOCH, 0)
    school.perform()
    while len(school.disk) < 5:
        school.step()
    return school


def test_no_more_than_a_window_of_parts_is_on_its_way() -> None:
    school = School(parts_of(50), 1)
    school.teacher.teach(topic(), EPOCH, 0)
    school.perform()
    for _ in range(20):
        if school.reads:
            school.export()
        school.perform()
    assert len(school.link) == WINDOW


def test_a_pupil_that_does_not_answer_is_given_up() -> None:
    school = begun()
    school.teacher.tick(school.now + PATIENCE_MS)
    school.perform()
    assert school.given_up == ["it has not answered for 60 s"]
    assert school.ends == 1
    assert not school.teacher.teaches(SHARD, PUPIL)
    school.teacher.part_read(SnapshotRead(topic(), b"x"), school.now)
    school.teacher.receive(PUPIL, Taken(SHARD, 1, 6, ended=False, refused=""), school.now)
    assert school.teacher.effects == TeacherEffects()


def test_a_log_that_can_not_be_read_ends_it() -> None:
    school = begun()
    school.teacher.part_read(SnapshotRead(topic(), StorageFault("io", "the disk is gone")), school.now)
    school.perform()
    assert school.given_up == ["the disk is gone"]


def test_a_disk_that_refuses_a_part_ends_it() -> None:
    school = begun()
    while not school.imports:
        school.step()
    _, token = school.imports.popleft()
    school.loss = 1.0
    school.pupil.imported(SnapshotRefused(token, "the chain breaks"))
    school.perform()
    school.loss = 0.0
    assert school.pupil.learns(SHARD)
    while not school.given_up:  # the answer got lost, and is given again
        school.step()
    assert school.given_up == ["the chain breaks"]
    assert len(school.disk) >= 5


def test_a_pupil_that_started_again_takes_no_part_from_the_middle() -> None:
    school = begun()
    school.pupil = Pupil(lambda _shard, _epoch: True)
    while not school.given_up:
        school.step()
    assert school.given_up == ["it is not taken here, or not from its middle"]


@pytest.mark.parametrize(("may", "epoch"), [(False, EPOCH), (True, EPOCH - 1)])
def test_a_member_of_the_shard_is_taught_nothing_nor_by_a_primary_of_before(epoch: int, *, may: bool) -> None:
    allowed = True
    pupil = Pupil(lambda _shard, _epoch: allowed)
    begin = parts_of(0)[0]
    pupil.receive(TEACHER, Lesson(SHARD, EPOCH, 1, 1, 0, begin))
    assert (pupil.effects.begun, len(pupil.effects.imports)) == ([SHARD], 1)
    allowed = may
    pupil.effects = PupilEffects()
    pupil.receive(MemberId("n3", "d3"), Lesson(SHARD, epoch, 2, 1, 0, begin))
    assert (pupil.effects.begun, pupil.effects.imports) == ([], [])
    ((to, answer),) = pupil.effects.sends
    assert to.node == "n3"
    assert answer.refused
    pupil.forget(SHARD)
    assert not pupil.learns(SHARD)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", teaching_wire.encode(Taken(-1, 1, 0, ended=False, refused="")), bytes(teaching_wire.MAX_LESSON + 1),
     teaching_wire.encode(Lesson(1, 1, 1, -1, 0, b""))],
)  # fmt: skip
def test_a_lesson_that_is_none_can_not_be_read(data: bytes) -> None:
    with pytest.raises(CorruptEntry, match="lesson"):
        teaching_wire.decode(data)
