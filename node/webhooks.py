"""All webhooks of a node: a task for each receiver, and one that reads the log for them.

They run beside the hub and are never waited for by it. What they have not delivered is held in the log.
"""

from __future__ import annotations

import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from node.logs import events
from node.status import WebhookTrouble
from node.version import VERSION
from node.webhook_delivery import GRACE_MS
from node.webhook_feed import Feed, LogTail
from node.webhook_files import Progress, TargetFiles, WebhookFault
from node.webhook_receiver import MOST_ATTEMPTS, Receiver, Surroundings
from node.webhook_target import targets_of
from router.tail import Hold, first_cursor, fit_cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edge_config.webhooks import WebhookTarget
    from node.metrics import Metrics
    from node.sites import Sites
    from node.webhook_attendance import Subject
    from node.webhook_feed import Source
    from node.webhook_target import Target, TargetId
    from router.events import Recovered
    from router.ids import ShardId

LOOK_SECONDS: Final = 1.0  # between two looks at what operators wish
HOLD_SECONDS: Final = 10.0  # between two changes of what the log has to hold
MEND_SECONDS: Final = 10.0  # until a receiver is begun again that could not go on
FINISH_SECONDS: Final = 5.0  # for what is on its way when the node ends; what is not through then comes after its start
DISK_THREADS: Final = 4

log = events(__name__)


class Store(Protocol):
    """The log, as far as it has to keep what is not delivered: `router.log.Log`."""

    def hold(self, hold: Hold | None) -> None:
        """Keep what was not read; None: nothing any more."""


class Webhooks:
    """All webhooks of a node.

    Args:
        data_dir: The node's.
        configured: `Config.webhooks`.
        node: The node's name.
        birth: Of its log.
        source: Where the log is read.
        store: Holds what is not delivered.
        is_chat: Whether the room of a channel has chat messages.
        metrics: Where it is counted.
        watched: Called with whether `note` is to be called.
        wall_ms: The time, in milliseconds since 1970.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - its surroundings, composed in one place
        self, data_dir: Path, configured: Mapping[str, WebhookTarget], node: str, birth: str, source: Source,
        store: Store, is_chat: Callable[[str], bool], metrics: Metrics,
        watched: Callable[[bool], None],
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:  # fmt: skip
        self._data_dir, self._configured, self._birth = data_dir, configured, birth
        self._store, self._metrics, self._wall_ms, self._told = store, metrics, wall_ms, watched
        self._tail = LogTail(source)
        self._feed = Feed(source, self._tail, self._readers)
        self._around = Surroundings(
            node, secrets.token_hex(4), VERSION, self._tail, is_chat, metrics, wall_ms,
            trio.CapacityLimiter(MOST_ATTEMPTS), trio.CapacityLimiter(DISK_THREADS), self._feed.poke,
        )  # fmt: skip
        self._targets: Mapping[TargetId, Target] = {}  # that there should be
        self._receivers: dict[TargetId, Receiver] = {}
        self._scopes: dict[TargetId, trio.CancelScope] = {}
        self._broken: dict[TargetId, str] = {}
        self._watching: dict[str, list[Receiver]] = {}  # by site those that are told who comes and goes
        self._changed = trio.Event()
        self._holds = False
        metrics.refreshers.append(self._measure)

    # -- for the composition -------------------------------------------------------------------------------------

    async def open(self, sites: Sites, recovered: Recovered) -> None:
        """Find out how far each receiver has got; before the node listens and before anything is dropped of the log."""
        self._targets = targets_of(self._configured, sites)
        for target in self._targets.values():
            await self._open(target, first_cursor(recovered), partial(fit_cursor, recovered=recovered))
        self._hold()

    async def run(self) -> None:
        """Send until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed.run)
            nursery.start_soon(self._look)
            for target_id in self._receivers:
                nursery.start_soon(self._serve, target_id)
            while True:
                await self._changed.wait()
                self._changed = trio.Event()
                await self._take_up(nursery)

    def replace(self, sites: Sites) -> None:
        """Other sites are in force."""
        self._targets = targets_of(self._configured, sites)
        self._changed.set()

    async def finish(self) -> None:
        """Send what has happened so far, within a few seconds."""
        for receiver in self._receivers.values():
            receiver.close()
        with trio.move_on_after(FINISH_SECONDS):
            for receiver in list(self._receivers.values()):
                await receiver.ended.wait()

    def note(self, subject: Subject, *, here: bool) -> None:
        """Somebody came or went; called on the hub's task."""
        for receiver in self._watching.get(subject.site, ()):
            receiver.note(subject, here=here)

    @property
    def troubles(self) -> tuple[WebhookTrouble, ...]:
        """Receivers that fail."""
        broken = [WebhookTrouble(webhook=str(name), error=error) for name, error in self._broken.items()]
        now = self._wall_ms()
        failing = [
            WebhookTrouble(
                webhook=str(name),
                error=receiver.progress.error,
                seconds=max(0.0, (now - receiver.delivery.failing_since) / 1000),
            )
            for name, receiver in self._receivers.items()
            if receiver.delivery.failing_since is not None
        ]
        return (*broken, *sorted(failing, key=lambda trouble: -trouble.seconds))

    # -- receivers -----------------------------------------------------------------------------------------------

    def _readers(self) -> Sequence[Receiver]:
        return [receiver for receiver in self._receivers.values() if receiver.target.wants_log]

    async def _open(
        self, target: Target, beginning: Mapping[ShardId, int],
        fitted: Callable[[Mapping[ShardId, int]], Mapping[ShardId, int]] = dict,
    ) -> None:  # fmt: skip
        """Make a receiver, as its files say.

        Args:
            target: What is configured.
            beginning: The cursor of a new one.
            fitted: What becomes of the cursor of an old one.
        """
        files = TargetFiles(self._data_dir, target.id)

        def read() -> tuple[Progress, int]:
            progress = files.progress()
            if progress is None or progress.birth != self._birth:
                progress = Progress(birth=self._birth, cursor=dict(beginning))
                files.begin(progress)
            elif not target.wants_log:
                progress.cursor = dict(beginning)  # if it wants something of the log one day, it begins there
            elif (cursor := dict(fitted(progress.cursor))) != progress.cursor:
                log.warning("webhook's cursor was beyond the log's end", webhook=str(target.id))
                progress.cursor = cursor
                files.keep(progress)
            return progress, len(files.dead())

        try:
            progress, dead = await trio.to_thread.run_sync(read, limiter=self._around.threads)
        except WebhookFault as fault:
            self._broken[target.id] = str(fault)
            log.error("webhook not begun", webhook=str(target.id), reason=str(fault))  # noqa: TRY400 - no bug
            return
        self._broken.pop(target.id, None)
        self._receivers[target.id] = Receiver(target, files, progress, dead, self._around)
        self._watch()

    async def _serve(self, target_id: TargetId) -> None:
        """Run a receiver until it is taken away; what goes wrong with it is not to end the node."""
        with trio.CancelScope() as scope:
            self._scopes[target_id] = scope
            while (receiver := self._receivers.get(target_id)) is not None:
                try:
                    await receiver.run()
                    break
                except Exception as error:  # noqa: BLE001 - the boundary: it ends neither the node nor the others
                    log.fault("webhook broke", error, webhook=str(target_id))
                await trio.sleep(MEND_SECONDS)
                await self._open(receiver.target, receiver.kept)
                self._feed.poke()

    async def _take_up(self, nursery: trio.Nursery) -> None:
        """Have the receivers that there should be."""
        targets = self._targets
        for target_id in [target_id for target_id in self._receivers if target_id not in targets]:
            del self._receivers[target_id]
            if (scope := self._scopes.pop(target_id, None)) is not None:
                scope.cancel()
        for target_id in [target_id for target_id in self._broken if target_id not in targets]:
            del self._broken[target_id]
        for target_id, target in targets.items():
            known = self._receivers.get(target_id)
            if known is not None:
                if target.wants_log and not known.target.wants_log:
                    known.delivery.read = await self._tail.heads()
                known.target = target
                continue
            await self._open(target, await self._tail.heads())
            if target_id in self._receivers:
                nursery.start_soon(self._serve, target_id)
        self._watch()
        self._hold()
        self._feed.poke()

    def _watch(self) -> None:
        watching: dict[str, list[Receiver]] = {}
        for receiver in self._receivers.values():
            if receiver.target.wants_attendance:
                watching.setdefault(receiver.site, []).append(receiver)
        self._watching = watching
        self._told(bool(watching))

    async def _look(self) -> None:
        """Look at what operators wish, and at what the log has to hold, until cancelled."""
        hold_at = trio.current_time()
        while True:
            receivers = list(self._receivers.values())
            for receiver in await trio.to_thread.run_sync(_wished, receivers) if receivers else ():
                receiver.replay()
            if trio.current_time() >= hold_at:
                hold_at += HOLD_SECONDS
                self._hold()
            await trio.sleep(LOOK_SECONDS)

    def _hold(self) -> None:
        readers = self._readers()
        if not readers:
            if self._holds:
                self._holds = False
                self._store.hold(None)
            return
        self._holds = True
        shards = {shard for receiver in readers for shard in receiver.kept}
        cursor = {shard: min(receiver.kept.get(shard, 0) for receiver in readers) for shard in shards}
        longest = max(receiver.target.pace.give_up_ms for receiver in readers)
        self._store.hold(Hold(cursor, self._wall_ms() - longest - GRACE_MS))

    def _measure(self) -> None:
        now, metrics = self._wall_ms(), self._metrics
        ages = {name: receiver.delivery.oldest_ms for name, receiver in self._receivers.items()}
        metrics.webhook_waiting = {
            (*name,): 0.0 if oldest is None else max(0.0, (now - oldest) / 1000) for name, oldest in ages.items()
        }
        metrics.webhook_dead = {(*name,): receiver.dead for name, receiver in self._receivers.items()}


def _wished(receivers: Sequence[Receiver]) -> list[Receiver]:
    """Those whose dead letters somebody wants sent again; blocks."""
    return [receiver for receiver in receivers if receiver.files.is_wished()]
