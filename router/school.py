"""The driver of a node's teaching: performs what its teacher and its pupil want done, on its log and its link."""

from __future__ import annotations

import logging
from itertools import count
from typing import TYPE_CHECKING, Protocol

from router import teaching_wire
from router.completions import SnapshotRead, SnapshotRefused, SnapshotTaken
from router.teaching import Pupil, PupilEffects, Teacher, TeacherEffects, Topic
from router.teaching_wire import Lesson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from router.events import ShardTail
    from router.ids import MemberId, ShardId
    from router.log import Log

_logger = logging.getLogger(__name__)


class Shards(Protocol):
    """The shards of this node, as their teaching sees them."""

    def may_learn(self, shard: ShardId, epoch: int) -> bool:
        """Whether a shard may be taken from a primary of an epoch, see `Pupil`."""

    def begun(self, shard: ShardId) -> None:
        """What the log has of a shard counts for nothing until `learned`: append and acknowledge nothing of it."""

    def learned(self, tail: ShardTail, keys: Sequence[int]) -> None:
        """The log has a shard up to here, and message ids of these numbers (`keyfilter.key_number`)."""

    def taught(self, shard: ShardId, member: MemberId, lsn: int) -> None:
        """As primary: a learner has all up to here; it is given the log from there on."""

    def given_up(self, shard: ShardId, member: MemberId) -> None:
        """As primary: a learner could not be given a snapshot."""


class School:
    """Teacher and pupil of one node.

    Args:
        log: Exports and imports; its `SnapshotRead`, `SnapshotTaken` and `SnapshotRefused` go to `complete`.
        shards: Told what has come about.
        send: Sends a body to a member; it may get lost.
    """

    def __init__(self, log: Log, shards: Shards, send: Callable[[MemberId, bytes], object]) -> None:
        self._log, self._shards, self._send = log, shards, send
        self._teacher, self._pupil = Teacher(), Pupil(shards.may_learn)
        self._serials = count(1)
        self._keys: dict[ShardId, list[int]] = {}

    def teach(self, shard: ShardId, member: MemberId, epoch: int, now: int) -> None:
        """As primary of an epoch: give a learner a snapshot; `Shards.taught` or `given_up` follows, unless dropped."""
        self._teacher.teach(Topic(shard, member, next(self._serials)), epoch, now)
        self._perform()

    def drop(self, shard: ShardId, member: MemberId) -> None:
        """As primary: end it, as it is the primary no more, or the learner is not wanted."""
        self._teacher.drop(shard, member)
        self._perform()

    def teaches(self, shard: ShardId, member: MemberId) -> bool:
        """Whether a learner is being given a snapshot."""
        return self._teacher.teaches(shard, member)

    def learns(self, shard: ShardId) -> bool:
        """Whether a shard is not whole here, see `Pupil.learns`."""
        return self._pupil.learns(shard)

    def receive(self, source: MemberId, body: bytes, now: int) -> None:
        """A message of another member's school.

        Raises:
            CorruptEntry: It is none.
        """
        message = teaching_wire.decode(body)
        if isinstance(message, Lesson):
            self._pupil.receive(source, message)
        else:
            self._teacher.receive(source, message, now)
        self._perform()

    def complete(self, done: SnapshotRead | SnapshotTaken | SnapshotRefused, now: int) -> None:
        """The log has answered."""
        if isinstance(done, SnapshotRead):
            self._teacher.part_read(done, now)
        else:
            self._pupil.imported(done)
        self._perform()

    def tick(self, now: int) -> None:
        """Time has passed, milliseconds of a clock that never goes back."""
        self._teacher.tick(now)
        self._perform()

    def _perform(self) -> None:
        self._perform_teacher()
        self._perform_pupil()

    def _perform_teacher(self) -> None:
        effects, self._teacher.effects = self._teacher.effects, TeacherEffects()
        for topic in effects.reads:
            self._log.export_shard(topic.shard, topic, topic)
        for topic in effects.ends:
            self._log.end_export(topic)
        for member, lesson in effects.sends:
            self._send(member, teaching_wire.encode(lesson))
        for topic, lsn in effects.taught:
            _logger.info("shard %d: %s has the snapshot, up to lsn %d", topic.shard, topic.pupil.node, lsn)
            self._shards.taught(topic.shard, topic.pupil, lsn)
        for topic, why in effects.given_up:
            _logger.warning("shard %d: %s can't be given a snapshot: %s", topic.shard, topic.pupil.node, why)
            self._shards.given_up(topic.shard, topic.pupil)

    def _perform_pupil(self) -> None:
        effects, self._pupil.effects = self._pupil.effects, PupilEffects()
        for shard in effects.begun:
            self._keys[shard] = []
            self._shards.begun(shard)
        for shard, part, token in effects.imports:
            self._log.import_shard(shard, part, token)
        for shard, numbers in effects.numbers:
            self._keys[shard] += numbers
        for tail in effects.learned:
            self._shards.learned(tail, self._keys.pop(tail.shard))
        for member, answer in effects.sends:
            self._send(member, teaching_wire.encode(answer))
