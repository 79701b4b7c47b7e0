"""Teaching: a primary gives a learner a snapshot of a shard, when its log no longer reaches back.  Sans-I/O.

Parts go a few ahead of what the pupil has on disk. When it makes no progress for a while, the first part that it has
not told of is sent again, more and more rarely, so that a slow link is not filled with what is on its way already. What
can't go on, on either side, ends: the primary then begins again with another snapshot, or another learner.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from router import snapshot
from router.completions import SnapshotRefused
from router.errors import StorageFault
from router.teaching_wire import Lesson, Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from router.completions import SnapshotRead, SnapshotTaken
    from router.events import ShardTail
    from router.ids import MemberId, ShardId

WINDOW = 8  # parts on their way to a pupil: about a megabyte
RESEND_MS = 1000  # at first; doubles up to
MOST_RESEND_MS = 8000
PATIENCE_MS = 60_000  # a pupil first drops what it had of the shard, which may take as long

_NOT_BEGUN = "it is not taken here, or not from its middle"


@dataclass(slots=True, frozen=True)
class Topic:
    """One snapshot for one pupil.

    Attributes:
        shard: Of which shard.
        pupil: Who is given it.
        serial: Of the snapshot; higher than that of any other that this node has given since it started.
    """

    shard: ShardId
    pupil: MemberId
    serial: int


@dataclass(slots=True)
class TeacherEffects:
    """What a teacher wants done, in this order.

    Attributes:
        reads: Next parts to be read: `Log.export_shard(topic.shard, topic, topic)`, answered to `part_read`.
        ends: Snapshots of which no more is read: `Log.end_export(topic)`.
        sends: To pupils; may get lost.
        taught: Who has it all now, and up to which lsn: from there on it is given the log.
        given_up: Who has not, and why.
    """

    reads: list[Topic] = field(default_factory=list)
    ends: list[Topic] = field(default_factory=list)
    sends: list[tuple[MemberId, Lesson]] = field(default_factory=list)
    taught: list[tuple[Topic, int]] = field(default_factory=list)
    given_up: list[tuple[Topic, str]] = field(default_factory=list)


class _Course:
    """What one pupil was sent."""

    __slots__ = ("all_read", "epoch", "heard", "lsn", "pause", "reading", "sent", "taken", "topic", "waiting")

    def __init__(self, topic: Topic, epoch: int, now: int) -> None:
        self.topic, self.epoch, self.lsn = topic, epoch, 0
        self.waiting: deque[bytes] = deque()  # parts that are not taken, from number `taken` + 1 on
        self.taken = 0
        self.reading = self.all_read = False
        self.sent = self.heard = now
        self.pause = RESEND_MS


class Teacher:
    """The snapshots that this node gives.

    Attributes:
        effects: To be performed and replaced by whoever drives it.
    """

    def __init__(self) -> None:
        self.effects = TeacherEffects()
        self._courses: dict[tuple[ShardId, MemberId], _Course] = {}

    def teach(self, topic: Topic, epoch: int, now: int) -> None:
        """Begin to give a snapshot; one that the pupil was being given of the shard ends.

        Args:
            topic: What and whom.
            epoch: Of this primary's tenure.
            now: Milliseconds of a clock that never goes back.
        """
        self.drop(topic.shard, topic.pupil)
        course = self._courses[topic.shard, topic.pupil] = _Course(topic, epoch, now)
        self._read_on(course)

    def drop(self, shard: ShardId, pupil: MemberId) -> None:
        """End it: this node is no longer the primary, or the pupil is not wanted."""
        course = self._courses.pop((shard, pupil), None)
        if course is not None:
            self.effects.ends.append(course.topic)

    def teaches(self, shard: ShardId, pupil: MemberId) -> bool:
        """Whether a pupil is being given a snapshot of a shard."""
        return (shard, pupil) in self._courses

    def part_read(self, done: SnapshotRead, now: int) -> None:
        """The log has read a part."""
        topic: Topic = done.token
        course = self._courses.get((topic.shard, topic.pupil))
        if course is None or course.topic != topic:
            return
        course.reading = False
        if isinstance(done.result, StorageFault):
            self._give_up(course, str(done.result))
        elif not done.result:
            course.all_read = True
        else:
            if not course.taken and not course.waiting:
                begin = snapshot.decode(done.result)
                course.lsn = begin.lsn if isinstance(begin, snapshot.Begin) else 0
            course.waiting.append(done.result)
            self._send(course, len(course.waiting) - 1, now)
            self._read_on(course)

    def receive(self, source: MemberId, message: Taken, now: int) -> None:
        """A pupil has taken parts, or won't."""
        course = self._courses.get((message.shard, source))
        if course is None or course.topic.serial != message.serial:
            return
        course.heard = now
        if message.refused:
            self._give_up(course, message.refused)
            return
        while course.taken < message.number and course.waiting:
            course.waiting.popleft()
            course.taken += 1
            course.sent, course.pause = now, RESEND_MS
        if message.ended and not course.waiting:
            self.drop(message.shard, source)
            self.effects.taught.append((course.topic, course.lsn))
        else:
            self._read_on(course)

    def tick(self, now: int) -> None:
        """Time has passed."""
        for course in list(self._courses.values()):
            if now - course.heard >= PATIENCE_MS:
                self._give_up(course, f"it has not answered for {PATIENCE_MS // 1000} s")
            elif course.waiting and now - course.sent >= course.pause:
                course.pause = min(2 * course.pause, MOST_RESEND_MS)
                self._send(course, 0, now)

    def _read_on(self, course: _Course) -> None:
        if not course.reading and not course.all_read and len(course.waiting) < WINDOW:
            course.reading = True
            self.effects.reads.append(course.topic)

    def _send(self, course: _Course, at: int, now: int) -> None:
        topic, number = course.topic, course.taken + at + 1
        lesson = Lesson(topic.shard, course.epoch, topic.serial, number, course.taken, course.waiting[at])
        self.effects.sends.append((topic.pupil, lesson))
        course.sent = now

    def _give_up(self, course: _Course, why: str) -> None:
        self.drop(course.topic.shard, course.topic.pupil)
        self.effects.given_up.append((course.topic, why))


@dataclass(slots=True)
class PupilEffects:
    """What a pupil wants done, in this order.

    Attributes:
        begun: Shards whose log here counts for nothing from now on: nothing of them may be appended, or acknowledged.
        imports: Parts for the disk: `Log.import_shard(shard, part, token)`, answered to `imported`.
        sends: To teachers; may get lost.
        learned: Shards whose log is on disk now, and where it ends.
        numbers: By shard, of dedupe keys that the disk has now.
    """

    begun: list[ShardId] = field(default_factory=list)
    imports: list[tuple[ShardId, bytes, object]] = field(default_factory=list)
    sends: list[tuple[MemberId, Taken]] = field(default_factory=list)
    learned: list[ShardTail] = field(default_factory=list)
    numbers: list[tuple[ShardId, Sequence[int]]] = field(default_factory=list)


class _Study:
    """What this pupil has of one snapshot."""

    __slots__ = ("course", "ended", "importing", "parts", "refused", "shard", "taken", "teacher")

    def __init__(self, shard: ShardId, teacher: MemberId, course: tuple[int, int]) -> None:
        self.shard, self.teacher, self.course = (
            shard,
            teacher,
            course,
        )  # its epoch and serial: of two, the higher counts
        self.parts: dict[int, bytes] = {}  # that wait for those before them
        self.taken = 0
        self.importing = self.ended = False
        self.refused = ""


class Pupil:
    """The snapshots that this node takes.

    Args:
        may_learn: Whether a shard may be taken from a primary of an epoch: this node is not of the shard's members,
            has promised no higher epoch, and reads or writes nothing of it.

    Attributes:
        effects: To be performed and replaced by whoever drives it.
    """

    def __init__(self, may_learn: Callable[[ShardId, int], bool]) -> None:
        self.effects = PupilEffects()
        self._may_learn = may_learn
        self._studies: dict[ShardId, _Study] = {}

    def learns(self, shard: ShardId) -> bool:
        """Whether a shard's log is not whole here, as a snapshot of it has begun and not ended."""
        study = self._studies.get(shard)
        return study is not None and not study.ended

    def forget(self, shard: ShardId) -> None:
        """This node takes part in a shard: nobody teaches it any more."""
        self._studies.pop(shard, None)

    def receive(self, source: MemberId, lesson: Lesson) -> None:
        """A part has come."""
        study = self._studies.get(lesson.shard)
        course = lesson.epoch, lesson.serial
        if study is None or study.course != course:
            is_old = study is not None and course < study.course
            if is_old or lesson.known or not self._may_learn(lesson.shard, lesson.epoch):
                answer = Taken(lesson.shard, lesson.serial, 0, ended=False, refused=_NOT_BEGUN)
                self.effects.sends.append((source, answer))
                return
            study = self._studies[lesson.shard] = _Study(lesson.shard, source, course)
            self.effects.begun.append(lesson.shard)
        if lesson.number <= study.taken or study.refused:
            self._answer(study)  # the one before got lost
        elif study.taken + study.importing < lesson.number <= study.taken + WINDOW:
            study.parts[lesson.number] = lesson.part
            self._import(study)

    def imported(self, done: SnapshotTaken | SnapshotRefused) -> None:
        """The disk has a part, or refuses it."""
        study: _Study = done.token
        study.importing = False
        if self._studies.get(study.shard) is not study:
            return
        if isinstance(done, SnapshotRefused):
            study.refused = done.reason[:1000]
            study.parts.clear()
        else:
            study.taken += 1
            self.effects.numbers.append((study.shard, done.numbers))
            if done.tail is not None:
                study.ended = True
                self.effects.learned.append(done.tail)
        self._answer(study)
        self._import(study)

    def _import(self, study: _Study) -> None:
        part = None if study.importing else study.parts.pop(study.taken + 1, None)
        if part is not None:
            study.importing = True
            self.effects.imports.append((study.shard, part, study))

    def _answer(self, study: _Study) -> None:
        answer = Taken(study.shard, study.course[1], study.taken, ended=study.ended, refused=study.refused)
        self.effects.sends.append((study.teacher, answer))
