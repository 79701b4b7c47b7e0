"""The status of a cluster for people (verdict first, then a table) and for programs (JSON).  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from node.status import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import RenderableType

    from node.status import ClusterStatus, NodeStatus, Reason

UNKNOWN: Final = "-"
WIDE_CHARACTERS: Final = 165  # of a row with a name and figures of usual length
MESH_CHARACTERS: Final = 25  # more, with a cluster
STYLES: Final[Mapping[Verdict, str]] = {
    Verdict.OK: "bold green",
    Verdict.WARN: "bold yellow",
    Verdict.CRIT: "bold red",
}


def rendered(cluster: ClusterStatus, width: int) -> RenderableType:
    """Verdict, reasons, and a row per node; a column per node if `width`, in characters, is too little for rows."""
    up = len(cluster.nodes)
    verdict = Text.assemble(
        (cluster.verdict.name, STYLES[cluster.verdict]), f"  {up} of {counted(cluster.expected, 'node')} up"
    )
    reasons = [
        Text.assemble((f"{reason.verdict.name:5}", STYLES[reason.verdict]), reason.text) for reason in cluster.reasons
    ]
    wide = WIDE_CHARACTERS + (MESH_CHARACTERS if any(node.mesh for node in cluster.nodes) else 0)
    table = _wide(cluster) if width >= wide else _narrow(cluster)
    return Group(verdict, *reasons, Text(), table)


def as_json(cluster: ClusterStatus) -> bytes:
    """The same for programs, on one line."""
    nodes: list[dict[str, Any]] = [{**_alone(node), **_judged(judge(node))} for node in cluster.nodes]
    return msgspec.json.encode(
        {
            **_judged(cluster.reasons),
            "nodes_up": len(cluster.nodes),
            "nodes_expected": cluster.expected,
            "nodes": nodes,
            "unreachable": cluster.unreachable,
        }
    )


def _alone(node: NodeStatus) -> dict[str, Any]:
    """A node without what it knows of the others, which stand beside it."""
    told: dict[str, Any] = msgspec.to_builtins(node)
    if told["mesh"] is None:
        del told["mesh"]
    else:
        del told["mesh"]["nodes"], told["mesh"]["unreachable"]
    return told


def _judged(reasons: tuple[Reason, ...]) -> dict[str, Any]:
    worst = max((reason.verdict for reason in reasons), default=Verdict.OK)
    return {
        "verdict": worst.name,
        "reasons": [{"verdict": reason.verdict.name, "text": reason.text} for reason in reasons],
    }


def _peers(node: NodeStatus) -> str:
    mesh = node.mesh
    if mesh is None:
        return UNKNOWN
    up = [peer for peer in mesh.peers if peer.state == "up"]
    slowest = max((peer.rtt_seconds for peer in up if peer.rtt_seconds is not None), default=None)
    return f"{len(up)}/{len(mesh.peers)} {delay(slowest)}"


def _shards(node: NodeStatus) -> str:
    return UNKNOWN if node.mesh is None else f"{node.mesh.shards_served} of {node.mesh.shards}"


_COLUMNS: Final[Mapping[str, Callable[[NodeStatus], str]]] = {
    "region": lambda node: node.region,
    "state": lambda node: node.state.value,
    "version": lambda node: node.version,
    "uptime": lambda node: duration(node.uptime_seconds),
    "connections": lambda node: f"{node.connections:,}",
    "rooms": lambda node: f"{node.rooms:,}",
    "msgs in/out per s": lambda node: (
        f"{_rate(node.recent.received_per_second)} / {_rate(node.recent.delivered_per_second)}"
    ),
    "latency p50/p99": lambda node: (
        f"{delay(node.recent.latency_p50_seconds)} / {delay(node.recent.latency_p99_seconds)}"
    ),
    "loop lag p99": lambda node: delay(node.recent.loop_lag_p99_seconds),
    "memory": lambda node: size(node.memory_bytes),
    "CPU": lambda node: _share(node.recent.cpu_share),
    "log": lambda node: f"{size(node.log_bytes)} {node.log.value}",
}
_OF_MESH: Final[Mapping[str, Callable[[NodeStatus], str]]] = {"peers": _peers, "shards": _shards}


def _columns(cluster: ClusterStatus) -> Mapping[str, Callable[[NodeStatus], str]]:
    return {**_COLUMNS, **_OF_MESH} if any(node.mesh for node in cluster.nodes) else _COLUMNS


def _wide(cluster: ClusterStatus) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    columns = _columns(cluster)
    for heading in ("", "node", *columns):
        table.add_column(heading, no_wrap=True)
    for node in cluster.nodes:
        cells = (Text(column(node)) for column in columns.values())
        table.add_row(_mark(node), Text(node.node), *cells)
    for gone in cluster.unreachable:
        table.add_row(_styled(Verdict.CRIT), Text(gone.address), UNKNOWN, Text("unreachable"))
    return table


def _narrow(cluster: ClusterStatus) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(1 + cluster.expected):
        table.add_column(overflow="fold")
    addresses = [Text(gone.address) for gone in cluster.unreachable]
    table.add_row(Text("node"), *(Text(node.node) for node in cluster.nodes), *addresses)
    table.add_row(Text("verdict"), *map(_mark, cluster.nodes), *(_styled(Verdict.CRIT) for _ in addresses))
    for heading, column in _columns(cluster).items():
        gone = Text("unreachable" if heading == "state" else UNKNOWN)
        table.add_row(Text(heading), *(Text(column(node)) for node in cluster.nodes), *(gone for _ in addresses))
    return table


def _mark(node: NodeStatus) -> Text:
    return _styled(max((reason.verdict for reason in judge(node)), default=Verdict.OK))


def _styled(verdict: Verdict) -> Text:
    return Text(verdict.name, STYLES[verdict])


def counted(number: int, noun: str) -> str:
    """``1 node``, ``2 nodes``, ``2 entries``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """``3 d 4 h``, ``4 h 5 min``, ``5 min``, ``42 s``."""
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole} s"


def delay(seconds: float | None) -> str:
    """``4.2 ms``, ``1.2 s``."""
    if seconds is None:
        return UNKNOWN
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def size(number: int | None) -> str:
    """``512 B``, ``1.5 MiB``."""
    if number is None:
        return UNKNOWN
    if number < 1024:
        return f"{number} B"
    amount = float(number)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def _rate(per_second: float | None) -> str:
    if per_second is None:
        return UNKNOWN
    return f"{per_second:,.1f}" if 0 < per_second < 10 else f"{per_second:,.0f}"


def _share(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.0%}"
