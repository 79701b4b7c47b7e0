"""What the central register answers: the rules of replication.md that it can hold by itself, over the store.  Sans-I/O.

All that has come is answered in one transaction, so in one fsync. A row is put in force only if it follows the one in
force, its primary is one of the members in force (rule 1), and it names no fewer members than `min_sync`, or than the
row in force does, if that names fewer already. Else the answer is the row in force, as to a claim that came too late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from router.errors import CorruptEntry
from router.register_wire import (
    MOST_ROWS,
    WINDOW,
    CasRequest,
    Open,
    Opened,
    ReadRequest,
    Row,
    Rows,
    Swap,
    Swapped,
    Unknown,
    decode_request,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from node.central.store import Store
    from router.register_wire import Answer, Certificate, Request

_encode_results = msgspec.msgpack.Encoder().encode
_decode_results = msgspec.msgpack.Decoder(list[tuple[bool, Row]]).decode


@dataclass(slots=True)
class Served:
    """What came of a batch of messages.

    Attributes:
        answers: To whom, and what; in the order of the requests.
        opened: Nodes that have asked for a session, and where they are answered from now on.
        changes: Rows that were put in force, and the nodes that asked for it.
        refused: Changes that break a rule, and why: the node that asked is at fault.
        unreadable: Messages that are no requests: from whom, and why.
        forgotten: Requests that were answered `Unknown`: of whom.
    """

    answers: list[tuple[str, bytes]] = field(default_factory=list)
    opened: list[tuple[str, str]] = field(default_factory=list)
    changes: list[tuple[str, Row]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)


class Service:
    """Answers requests.

    Args:
        store: Where rows and answers are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def serve(self, messages: Iterable[tuple[str, bytes]]) -> Served:
        """Answer messages, each with the node that sent it; what is answered is on disk.

        Raises:
            StorageFault: The disk has failed; nothing may be answered.
        """
        served = Served()
        requests: list[tuple[str, Request]] = []
        for node, body in messages:
            try:
                requests.append((node, decode_request(body)))
            except CorruptEntry as error:
                served.unreadable.append((node, str(error)))
        if not requests:
            return served
        with self._store.transaction():
            certificate = self._store.certificate()
            for node, request in requests:
                served.answers.append((node, encode(self._answer(node, request, certificate, served))))
        return served

    def _answer(self, node: str, request: Request, certificate: Certificate, served: Served) -> Answer:
        match request:
            case Open(boot=boot, address=address):
                served.opened.append((node, address))
                return Opened(boot, self._store.open_session(node, boot, address), certificate)
            case CasRequest():
                return self._cas(node, request, certificate, served)
            case ReadRequest(boot=boot, n=n, after=after):
                self._store.count_read()
                rows = self._store.rows(after, MOST_ROWS + 1)
                return Rows(boot, n, certificate.settings, rows[:MOST_ROWS], len(rows) > MOST_ROWS)

    def _cas(self, node: str, request: CasRequest, certificate: Certificate, served: Served) -> Answer:
        store, number, n = self._store, request.session, request.n
        session = store.session(number)
        if session is None or (session.node, session.boot) != (node, request.boot):
            served.forgotten.append(node)
            return Unknown(request.boot, number, n)
        known = store.answer(number, n)
        if known is not None:
            return Swapped(request.boot, number, n, certificate.settings, _decode_results(known))
        if n <= session.floor:
            served.forgotten.append(node)
            return Unknown(request.boot, number, n)
        results = [self._swap(node, swap, certificate, served) for swap in request.swaps]
        store.keep(number, n, _encode_results(results))
        floor = max(request.settled, n - WINDOW)
        if floor > session.floor:
            store.forget(number, floor)
        return Swapped(request.boot, number, n, certificate.settings, results)

    def _swap(self, node: str, swap: Swap, certificate: Certificate, served: Served) -> tuple[bool, Row]:
        current, new = self._store.row(swap.row.shard), swap.row
        if current.version != swap.expected:
            return False, current
        fault = fault_of(current, new, certificate)
        if fault:
            served.refused.append((node, fault))
            return False, current
        self._store.put(new)
        served.changes.append((node, new))
        return True, new


def fault_of(current: Row, new: Row, certificate: Certificate) -> str:
    """Why a row may not follow the one in force; empty: it may."""
    shard = new.shard
    if shard >= certificate.shards:
        return f"shard {shard}: the cluster has {certificate.shards}, from 0"
    if new.epoch <= current.epoch:
        return f"shard {shard}: epoch {new.epoch} would follow {current.epoch}; every change raises it"
    if current.version and new.primary not in current.members:
        return f"shard {shard}: {new.primary} would be primary, and is none of the members {current.members}"
    least = min(certificate.min_sync, len(current.members)) if current.version else certificate.min_sync
    if len(new.members) < least:
        return f"shard {shard}: {len(new.members)} members would follow {len(current.members)}, at least {least} may"
    return ""
