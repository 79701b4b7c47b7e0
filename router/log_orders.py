"""What the writer of a log is handed beside batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from router.completions import MetaRead, ShardRead, TailRead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from router.entry import Entry
    from router.events import Configuration

Answer: TypeAlias = type[MetaRead] | type[ShardRead] | type[TailRead]


@dataclass(slots=True)
class Cas:
    """A compare-and-set of this node's own register."""

    expected_version: int
    new: Configuration
    token: Any


@dataclass(slots=True)
class Committed:
    """Entries that may be filed."""

    entries: Sequence[Entry]


@dataclass(slots=True)
class Question:
    """A read that has to be told what is not filed; so it goes by the writer, who knows.

    Attributes:
        answer: What the reader makes of its result.
        ask: Called by the writer; gives what the reader is to do.
    """

    answer: Answer
    ask: Callable[[], Callable[[], Any]]
    token: Any
    handed_on: bool = False
