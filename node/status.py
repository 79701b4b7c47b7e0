"""How a node and its cluster are, and the verdict on it.  Pure.

A node describes itself by a `NodeStatus`; `judge` alone decides what is good enough, so that the command line, the page
and an alert never disagree. `readiness` is the narrower question of a balancer: should clients be sent here?
"""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LAG_WARN_SECONDS: Final = 0.1  # 99th percentile; clients feel it
LAG_CRIT_SECONDS: Final = 1.0  # pings and acknowledgements begin to miss their deadlines
LATENCY_WARN_SECONDS: Final = 0.1  # 99th percentile from publish to deliver; twice what is promised at half load
DISK_WARN_SHARE: Final = 0.8  # at 85 % the log refuses messages: time to act is left
CPU_WARN_SHARE: Final = 0.9  # of the one core that a node can use
WEBHOOK_WARN_SECONDS: Final = 60.0  # of failure; a receiver that is restarted is back by then
CUT_OFF: Final = "no other node of the cluster is heard, nor the central"
MOST_TROUBLES: Final = 10  # webhooks that a status names


class State(StrEnum):
    """Where a node is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class LogState(StrEnum):
    """Whether the log takes messages."""

    OK = "ok"
    FULL = "full"
    HALTED = "halted"


class Verdict(IntEnum):
    """How bad it is; the value is the exit status of `chat-node cluster status`."""

    OK = 0
    WARN = 1
    CRIT = 2


class Reason(NamedTuple):
    """What keeps a verdict from being OK."""

    verdict: Verdict
    text: str


class WebhookTrouble(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook's receiver that fails.

    Attributes:
        webhook: As SITE/NAME.
        error: What went wrong last, and the mend.
        seconds: How long it has failed; 0: it was never begun.
    """

    webhook: str
    error: str
    seconds: float = 0.0


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """The last minute of a node. None: not measured yet, or nothing happened that could be.

    Attributes:
        received_per_second: Publications from clients.
        delivered_per_second: Publications handed to clients.
        latency_p50_seconds: From publish to deliver; so is `latency_p99_seconds`.
        loop_lag_p99_seconds: How late the loop wakes tasks.
        cpu_share: Of one core; above 1 with several.
    """

    received_per_second: float | None = None
    delivered_per_second: float | None = None
    latency_p50_seconds: float | None = None
    latency_p99_seconds: float | None = None
    loop_lag_p99_seconds: float | None = None
    cpu_share: float | None = None


class Unreachable(msgspec.Struct, frozen=True, kw_only=True):
    """A node that should be there and does not answer."""

    address: str
    reason: str


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Another node of the cluster, as a node sees it.

    Attributes:
        region: As it said; empty: it was never heard.
        state: Of `router.membership_events.State`.
        hears: Whether it has said lately that it hears this one.
        silence_seconds: Since it was heard; None: it never was.
        rtt_seconds: There and back; None: not measured.
    """

    node: str
    region: str
    state: str
    hears: bool
    silence_seconds: float | None = None
    rtt_seconds: float | None = None


class MeshStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster, as one of its nodes sees it.

    Attributes:
        copies: That a shard is to have.
        shards: That are in use.
        shards_served: Those that this node is primary of.
        shards_short: Those with fewer copies than they are to have.
        cut_off: Whether it hears nobody, nor the central.
        nodes: What the others have just said of themselves.
        unreachable: Those that have not.
    """

    peers: tuple[PeerStatus, ...]
    copies: int
    shards: int
    shards_served: int
    shards_short: int
    cut_off: bool = False
    nodes: tuple[NodeStatus, ...] = ()
    unreachable: tuple[Unreachable, ...] = ()


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a node knows of itself.

    Attributes:
        uptime_seconds: Since the process started.
        rooms: Rooms with members on this node.
        log_reason: Why the log is not OK, and the mend.
        memory_bytes: Resident; None where the system does not tell.
        disk_used_share: Of the disk that holds the log, from 0 to 1; None where the system does not tell.
        webhooks: Receivers of webhooks that fail, at most `MOST_TROUBLES`.
        mesh: Its cluster; None: it is alone.
    """

    node: str
    region: str
    version: str
    state: State
    uptime_seconds: float
    connections: int
    rooms: int
    log: LogState
    log_bytes: int
    log_reason: str = ""
    memory_bytes: int | None = None
    disk_used_share: float | None = None
    recent: Recent = Recent()
    webhooks: tuple[WebhookTrouble, ...] = ()
    mesh: MeshStatus | None = None


class Health(Enum):
    """The answer of `/health/ready`; the value is its HTTP status."""

    READY = 200
    UNREADY = 503


class Check(msgspec.Struct, frozen=True):
    """One condition of readiness.

    Attributes:
        ok: Whether it holds.
        reason: If not, why; else empty.
    """

    ok: bool
    reason: str = ""


class Readiness(msgspec.Struct, frozen=True):
    """Whether clients should be sent here."""

    status: str
    checks: dict[str, Check]

    @property
    def health(self) -> Health:
        """As a balancer reads it."""
        return Health.READY if all(check.ok for check in self.checks.values()) else Health.UNREADY


def readiness(state: State, log: LogState, log_reason: str, *, cut_off: bool | None = None) -> Readiness:
    """Whether clients should be sent to a node in this state.

    Args:
        state: Of its life.
        log: Of its log.
        log_reason: Why the log is not OK.
        cut_off: Whether it is cut off from its cluster; None: it has none.
    """
    life = {
        State.STARTING: Check(ok=False, reason="the node is starting"),
        State.READY: Check(ok=True),
        State.DRAINING: Check(ok=False, reason="the node is shutting down; its clients go elsewhere"),
    }[state]
    storage = Check(ok=True) if log is LogState.OK else Check(ok=False, reason=log_reason or f"the log is {log.value}")
    checks = {"node": life, "log": storage}
    if cut_off is not None:
        checks["cluster"] = Check(
            not cut_off, "no other node of the cluster is heard, nor the central" if cut_off else ""
        )
    status = state.value if not life.ok else "cut off" if cut_off else "ready" if storage.ok else f"log {log.value}"
    return Readiness(status, checks)


def judge(status: NodeStatus) -> tuple[Reason, ...]:
    """All that is wrong with a node, the worst first; empty if it is well."""
    found = (*_of_log(status), *_of_state(status), *_of_load(status), *_of_webhooks(status), *_of_mesh(status))
    return tuple(sorted(found, key=lambda reason: -reason.verdict))


def _of_log(status: NodeStatus) -> Iterator[Reason]:
    if status.log is LogState.HALTED:
        yield Reason(Verdict.CRIT, f"the log has halted, no message is taken: {status.log_reason or 'no reason known'}")
    elif status.log is LogState.FULL:
        yield Reason(Verdict.CRIT, f"the log is full, no message is taken: {status.log_reason or 'make room'}")
    elif (used := status.disk_used_share) is not None and used >= DISK_WARN_SHARE:
        yield Reason(Verdict.WARN, f"the log's disk is {used:.0%} full; at 85 % messages are refused: make room")


def _of_state(status: NodeStatus) -> Iterator[Reason]:
    if status.state is State.STARTING:
        yield Reason(Verdict.WARN, "the node is starting")
    elif status.state is State.DRAINING:
        yield Reason(Verdict.WARN, "the node is shutting down; its clients go elsewhere")


def _of_load(status: NodeStatus) -> Iterator[Reason]:
    recent = status.recent
    if (lag := recent.loop_lag_p99_seconds) is not None and lag >= LAG_WARN_SECONDS:
        verdict = Verdict.CRIT if lag >= LAG_CRIT_SECONDS else Verdict.WARN
        yield Reason(verdict, f"the loop is {lag * 1000:.0f} ms late (99th percentile): the node is overloaded")
    if (latency := recent.latency_p99_seconds) is not None and latency >= LATENCY_WARN_SECONDS:
        yield Reason(Verdict.WARN, f"messages take {latency * 1000:.0f} ms (99th percentile)")
    if (cpu := recent.cpu_share) is not None and cpu >= CPU_WARN_SHARE:
        yield Reason(Verdict.WARN, f"the node uses {cpu:.0%} of its core: move clients or rooms to another")


def _of_webhooks(status: NodeStatus) -> Iterator[Reason]:
    for trouble in status.webhooks:
        if not trouble.seconds:
            yield Reason(Verdict.WARN, f"webhook {trouble.webhook} is not sent to: {trouble.error}")
        elif trouble.seconds >= WEBHOOK_WARN_SECONDS:
            failing = f"webhook {trouble.webhook} has failed for {trouble.seconds / 60:.0f} min"
            yield Reason(Verdict.WARN, f"{failing}: {trouble.error}; its events wait in the log")


def _of_mesh(status: NodeStatus) -> Iterator[Reason]:
    mesh = status.mesh
    if mesh is None:
        return
    if mesh.cut_off:
        yield Reason(Verdict.CRIT, "the node hears no other node, nor the central: its clients are sent elsewhere")
    for peer in mesh.peers:
        if peer.state in {"suspect", "down"}:
            ago = "" if peer.silence_seconds is None else f", heard {peer.silence_seconds:.0f} s ago"
            yield Reason(Verdict.WARN, f"{peer.node} is {peer.state} to it{ago}")
        elif peer.state == "up" and not peer.hears:
            yield Reason(Verdict.WARN, f"{peer.node} does not hear it, though it hears {peer.node}")
    if mesh.shards_short:
        yield Reason(Verdict.WARN, f"{mesh.shards_short} of {mesh.shards} shards have fewer than {mesh.copies} copies")


class ClusterStatus(NamedTuple):
    """What was found of a cluster.

    Attributes:
        expected: Nodes that should be up.
    """

    expected: int
    nodes: Sequence[NodeStatus]
    unreachable: Sequence[Unreachable]

    @classmethod
    def of(cls, answers: Sequence[NodeStatus | Unreachable]) -> ClusterStatus:
        """What nodes that were asked have said, of themselves and of the others of their clusters."""
        asked = [answer for answer in answers if isinstance(answer, NodeStatus)]
        nodes = {node.node: node for answer in asked if answer.mesh for node in answer.mesh.nodes}
        nodes |= {answer.node: answer for answer in asked}
        gone = {each.address: each for each in answers if isinstance(each, Unreachable)}
        for answer in asked:
            gone |= {each.address: each for each in (answer.mesh.unreachable if answer.mesh else ())}
        unreachable = [each for address, each in gone.items() if address not in nodes]
        order = [answer.node for answer in asked] + sorted(nodes.keys() - {answer.node for answer in asked})
        return cls(len(nodes) + len(unreachable), [nodes[name] for name in order], unreachable)

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """All that is wrong, the worst first, each with the node that it concerns."""
        gone = (Reason(Verdict.CRIT, f"{node.address} is unreachable: {node.reason}") for node in self.unreachable)
        found = (Reason(reason.verdict, f"{node.node}: {reason.text}") for node in self.nodes for reason in judge(node))
        return tuple(sorted((*gone, *found), key=lambda reason: -reason.verdict))

    @property
    def verdict(self) -> Verdict:
        """The worst of the reasons."""
        return max((reason.verdict for reason in self.reasons), default=Verdict.OK)
