"""One receiver: its attempts, what is kept of them on disk, and its dead letters when they are to be sent again."""

from __future__ import annotations

import random
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import trio

from node.logs import events
from node.webhook_attendance import Attendance
from node.webhook_delivery import Delivery, Letter, Note, Outcome
from node.webhook_events import GAP, Origin, gap_of, note_of, render, request_body
from node.webhook_files import DeadLetter, Replay, WebhookFault
from node.webhook_post import Unanswered, post
from node.webhook_signature import HEADER, sign
from router.entry import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from node.metrics import Metrics
    from node.webhook_attendance import Subject
    from node.webhook_delivery import Batch
    from node.webhook_feed import LogTail
    from node.webhook_files import Progress, TargetFiles
    from node.webhook_target import Target
    from router.ids import ShardId

MOST_ATTEMPTS: Final = 128  # of all receivers at once, each with a batch of half a megabyte or so in memory
KEEP_SECONDS: Final = 60.0  # after which a cursor is written down that moved over entries of no concern
MEND_SECONDS: Final = 5.0  # until the disk is tried again that could not be written
ERROR_CHARACTERS: Final = 300  # of what a receiver said, for people

T = TypeVar("T")
log = events(__name__)


class Surroundings(NamedTuple):
    """What all receivers of a node share.

    Attributes:
        node: The node's name.
        boot: A name of this life of it.
        version: Of the program.
        tail: The log.
        is_chat: Whether the room of a channel has chat messages.
        metrics: Where it is counted.
        wall_ms: The time, in milliseconds since 1970.
        attempts: Bounds how many there are at once.
        threads: Bounds how many wait for the disk.
        poke: Has the log read for whoever wants more.
    """

    node: str
    boot: str
    version: str
    tail: LogTail
    is_chat: Callable[[str], bool]
    metrics: Metrics
    wall_ms: Callable[[], int]
    attempts: trio.CapacityLimiter
    threads: trio.CapacityLimiter
    poke: Callable[[], None]


class Tried(NamedTuple):
    """What became of an attempt.

    Attributes:
        outcome: For what was sent.
        error: Why it was not taken; empty: it was.
        retry_after: Seconds that the receiver asked to be left alone.
    """

    outcome: Outcome
    error: str = ""
    retry_after: float = 0.0


class Receiver:
    """One receiver.

    Args:
        target: What is configured; may be replaced by another of the same name.
        files: Its files.
        progress: How far it has got.
        dead: How many dead letters it has.
        around: What it shares with others.

    Attributes:
        delivery: What is sent when.
        progress: As it was last written down, or will be.
        kept: The cursor that is on the disk.
        ended: Set when `run` has come to its end.
    """

    def __init__(self, target: Target, files: TargetFiles, progress: Progress, dead: int, around: Surroundings) -> None:
        self.files, self.progress, self.dead = files, progress, dead
        self.delivery = Delivery(target.pace, progress.cursor, random.random)
        self.kept: Mapping[ShardId, int] = progress.cursor
        self.ended = trio.Event()
        self._target, self._around = target, around
        self._attendance = Attendance(target.settle_seconds)
        self._news = trio.Event()
        self._closing = self._wished = False
        self._keep_at = -inf
        self._last_id = 0

    @property
    def target(self) -> Target:
        """What is configured."""
        return self._target

    @target.setter
    def target(self, target: Target) -> None:
        self._target, self.delivery.pace = target, target.pace
        self.wake()

    @property
    def site(self) -> str:
        """Whose events it is told."""
        return self._target.id.site

    @property
    def wanted(self) -> Collection[str]:
        """Names of those events."""
        return self._target.events

    # -- what is new ---------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There is something new for it."""
        self._news.set()

    def note(self, subject: Subject, *, here: bool) -> None:
        """Somebody came or went; called on the hub's task."""
        if not len(self._attendance):
            self.wake()
        self._attendance.note(subject, trio.current_time(), self._around.wall_ms(), here=here)

    def gap(self, shard: ShardId, last: int) -> Letter:
        """What it is told of entries that were gone before they could be read."""
        self._count("gap", 1)
        log.error("webhook missed entries", webhook=str(self._target.id), reason="retention dropped them from the log")
        return gap_of(shard, last, self.new_id(), self._around.wall_ms())

    def new_id(self) -> str:
        """An id for an event that is not of the log."""
        self._last_id += 1
        return f"{self._around.boot}-{self._last_id}"

    def replay(self) -> None:
        """Somebody wants the dead letters sent again."""
        self._wished = True
        self.wake()

    def close(self) -> None:
        """Send what has happened, try nothing again, and end."""
        self._closing = True
        self.wake()

    # -- the task ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send until it is closed or cancelled."""
        self._keep_at = trio.current_time() + KEEP_SECONDS
        while True:
            news = self._news = trio.Event()
            self._settle()
            if self._wished:
                await self._replay()
            now = inf if self._closing and not self.delivery.failures else trio.current_time()  # nothing lingers
            batch = self.delivery.next(now, self._around.wall_ms())
            if batch is None:
                if self._closing:
                    break
                await self._wait(news)
            elif batch.given_up is not None:
                await self._bury(batch, batch.given_up.value)
            else:
                await self._attempt(batch)
        await self._keep()
        self.ended.set()

    async def _wait(self, news: trio.Event) -> None:
        with trio.move_on_at(min(self.delivery.deadline, self._attendance.deadline, self._keep_at)):
            await news.wait()
        if trio.current_time() >= self._keep_at:
            self._keep_at = trio.current_time() + KEEP_SECONDS
            if self.delivery.cursor != self.kept:
                await self._keep()

    def _settle(self) -> None:
        """Tell of comings and goings that have settled."""
        now = trio.current_time()
        for change in self._attendance.settled(inf if self._closing else now):
            if change.event in self.wanted and not self.delivery.tell(note_of(change, self.new_id()), now):
                self._count("dropped", 1)
        if lost := self._attendance.lost:
            self._attendance.lost = 0
            self.delivery.drop(lost)
            self._count("dropped", lost)

    async def _attempt(self, batch: Batch) -> None:
        was_failing = self.delivery.failures > 0
        tried = await self._send(batch.letters, batch.notes, batch.dropped, batch.attempt)
        now_ms = self._around.wall_ms()
        self.delivery.answered(tried.outcome, trio.current_time(), now_ms, tried.retry_after)
        self.progress.failing_since = self.delivery.failing_since
        if tried.outcome is Outcome.DELIVERED:
            self.progress.delivered += len(batch.ids)
            self.progress.delivered_at = now_ms
            self._count("delivered", len(batch.ids))
            if was_failing:
                log.info("webhook delivers again", webhook=str(self._target.id), attempt=batch.attempt)
        else:
            self.progress.error, self.progress.error_at = tried.error, now_ms
            if not was_failing:
                log.warning("webhook failed", webhook=str(self._target.id), reason=tried.error)
        with trio.CancelScope(shield=True):  # what was taken is not to be sent again for want of a line on the disk
            await self._keep(durable=tried.outcome is Outcome.DELIVERED)
        self._around.poke()

    async def _send(self, letters: Sequence[Letter], notes: Sequence[Note], dropped: int, attempt: int) -> Tried:
        """One attempt."""
        around, target = self._around, self._target
        entries = await around.tail.find([letter for letter in letters if letter.event != GAP])
        rendered = [note.body for note in notes]
        for letter in letters:
            entry = entries.get((letter.shard, letter.lsn))
            if entry is not None and identity(entry.wire) != letter.id:  # of a log before a backup was restored
                entry = None
            rendered.append(render(letter, entry, is_chat=entry is not None and around.is_chat(entry.room.channel)))
        origin = Origin(target.id.site, target.id.name, around.node, around.boot)
        body = request_body(origin, rendered, dropped)
        now = around.wall_ms() // 1000
        headers = {
            "User-Agent": f"chat-node/{around.version}",
            "X-ChatNode-Attempt": str(attempt),
            HEADER: sign(body, target.secrets_at(now), now),
        }
        async with around.attempts:
            try:
                answer = await post(
                    target.url, body, headers, target.timeout_seconds, allow_private=target.allow_private
                )
            except Unanswered as trouble:
                self._count_attempt(trouble.trouble.value)
                return Tried(Outcome.FAILED, str(trouble))
        self._count_attempt(f"{answer.status // 100}xx")
        said = " ".join(answer.text.split())[:ERROR_CHARACTERS]
        error = f"it answered {answer.status}{f': {said}' if said else ''}"
        return Tried(answer.outcome, "" if answer.outcome is Outcome.DELIVERED else error, answer.retry_after)

    # -- what is not taken ---------------------------------------------------------------------------------------

    async def _bury(self, batch: Batch, why: str) -> None:
        now_ms, reason = self._around.wall_ms(), f"{why}: {self.progress.error}"
        letters = [DeadLetter.of_note(note, now_ms, reason) for note in batch.notes]
        letters += [DeadLetter.of_letter(letter, now_ms, reason) for letter in batch.letters]
        dropped = None
        while dropped is None:
            try:
                dropped = await self._in_thread(lambda: self.files.bury(letters, self._target.dead_letters))
            except WebhookFault as fault:
                log.error("dead letters not written", reason=str(fault))  # noqa: TRY400 - no bug
                await trio.sleep(MEND_SECONDS)
        self.dead += len(letters) - dropped
        self.progress.lost_letters += dropped
        self._count("dead", len(letters))
        log.error("webhook gave events up", webhook=str(self._target.id), events=len(letters), reason=reason)
        self.delivery.buried(trio.current_time())
        await self._keep()
        self._around.poke()

    async def _replay(self) -> None:
        """Send the dead letters again, until one is not taken."""
        self._wished = False
        try:
            left, sent, tried = await self._in_thread(self.files.dead), 0, Tried(Outcome.DELIVERED)
            while left and not self._closing:
                part = [letter.content for letter in left[: self._target.pace.batch_events]]
                letters = [event for event in part if isinstance(event, Letter)]
                notes = [event for event in part if isinstance(event, Note)]
                tried = await self._send(letters, notes, 0, 1)
                if tried.outcome is not Outcome.DELIVERED:
                    break
                left, sent = left[len(part) :], sent + len(part)
                await self._in_thread(lambda: self.files.replace_dead(left))  # noqa: B023 - it is called at once
                self.dead = len(left)
                self.progress.delivered += len(part)
                self._count("replayed", len(part))
            if not self._closing:
                await self._in_thread(lambda: self.files.grant(Replay(sent=sent, left=len(left), error=tried.error)))
        except WebhookFault as fault:
            log.error("dead letters not replayed", reason=str(fault))  # noqa: TRY400 - no bug, and it names its mend

    # -- what is kept --------------------------------------------------------------------------------------------

    async def _keep(self, *, durable: bool = True) -> None:
        progress, delivery = self.progress, self.delivery
        progress.cursor = cursor = delivery.cursor
        progress.waiting, progress.oldest = delivery.waiting, delivery.oldest_ms
        try:
            await self._in_thread(lambda: self.files.keep(progress, durable=durable))
        except WebhookFault as fault:
            log.error("webhook's cursor not written", reason=str(fault))  # noqa: TRY400 - no bug
        else:
            if durable:
                self.kept = cursor

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._around.threads)

    def _count(self, outcome: str, events: int) -> None:
        self._around.metrics.webhook_events[*self._target.id, outcome] += events

    def _count_attempt(self, outcome: str) -> None:
        self._around.metrics.webhook_attempts[*self._target.id, outcome] += 1
