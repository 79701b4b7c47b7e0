"""Log lines: an event's name and its fields, for people on a terminal and as JSON for machines.

``log = events("node.hub")`` and ``log.warning("connection refused", reason="full")``. A line is written at once by who
logs it: no queue, no thread. An event that comes more often than configured is counted instead of written, and the
count is written once the event is calm again, so that traffic can't fill a disk.
"""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TextIO

import msgspec
from typing_extensions import override

from edge_config.schema import LogFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_config.schema import Logging

BURST_SECONDS: Final = 5.0  # an event may come this many seconds' worth of lines at once, e.g. at a start
MOST_EVENTS: Final = 1000  # budgets kept; event names are ours and few, this only bounds a mistake

_FIELDS: Final = "chat_node_fields"
_COLOURS: Final = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[1;31m"}
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"


class Events:
    """A logger of events with fields.

    Args:
        name: Of the standard library's logger beneath it.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, /, **fields: object) -> None:
        """For those who look for a fault."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """All is as it should be."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Somebody should look at it, some day."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Somebody should look at it now."""
        self._write(logging.ERROR, event, fields)

    def fault(self, event: str, error: BaseException, /, **fields: object) -> None:
        """A fault of the program; written with its traceback."""
        self._write(logging.ERROR, event, fields, error)

    def _write(self, level: int, event: str, fields: Mapping[str, object], error: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=error, extra={_FIELDS: fields})


def events(name: str) -> Events:
    """The event logger of a module."""
    return Events(name)


class Budget:
    """A token bucket for the lines of one event.

    Attributes:
        suppressed: Lines not written since the last one that was.
    """

    __slots__ = ("_burst", "_rate", "_time", "_tokens", "suppressed")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._burst = self._tokens = max(1.0, rate * BURST_SECONDS)
        self._time = now
        self.suppressed = 0

    def spend(self, now: float) -> bool:
        """Whether a line may be written; if so, it is paid for."""
        self._tokens = min(self._burst, self._tokens + (now - self._time) * self._rate)
        self._time = now
        if self._tokens < 1.0:
            self.suppressed += 1
            return False
        self._tokens -= 1.0
        return True

    def is_calm(self, now: float) -> bool:
        """Whether the event has been rare for so long that the budget is whole again."""
        return self._tokens + (now - self._time) * self._rate >= self._burst


class Lines(logging.StreamHandler[TextIO]):
    """Writes records within each event's budget.

    Args:
        stream: Where to.
        rate: Lines of one event per second.
        clock: Monotonic seconds.
    """

    def __init__(self, stream: TextIO, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._rate = rate
        self._clock = clock
        self._budgets: dict[str, Budget] = {}
        self._owed: set[str] = set()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, unless its event has used its budget up."""
        now = self._clock()
        event = str(record.msg)
        budget = self._budgets.get(event)
        if budget is None:
            if len(self._budgets) >= MOST_EVENTS:
                self._budgets.clear()
            budget = self._budgets[event] = Budget(self._rate, now)
        if self._owed:
            self._settle(now)
        if budget.spend(now):
            super().emit(record)
        else:
            self._owed.add(event)

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        """Nobody reads our lines any more (a closed pipe, a full disk): the node goes on."""

    @override
    def close(self) -> None:
        """Write the counts that are still owed."""
        self._settle(now=None)
        super().close()

    def _settle(self, now: float | None) -> None:
        """Write how many lines of events were suppressed: of those that are calm, or, without `now`, of all."""
        for event in sorted(self._owed):
            budget = self._budgets.get(event)
            if budget is not None and (now is None or budget.is_calm(now)):
                super().emit(_suppressed(event, budget.suppressed))
                budget.suppressed = 0
                self._owed.discard(event)
            elif budget is None:
                self._owed.discard(event)


def _suppressed(event: str, count: int) -> logging.LogRecord:
    record = logging.LogRecord("node.logs", logging.WARNING, __file__, 0, "lines suppressed", None, None)
    setattr(record, _FIELDS, {"of": event, "count": count})
    return record


class JsonLine(logging.Formatter):
    """A JSON object a line: ts, level, event, logger, and the fields."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Give the record's line."""
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        for name, value in _fields(record).items():
            line[f"{name}_" if name in line else name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class ConsoleLine(logging.Formatter):
    """``12:30:05 warning  connection refused  reason=full``.

    Args:
        coloured: Escape sequences for colours, or an empty mapping.
    """

    def __init__(self, coloured: Mapping[int, str]) -> None:
        super().__init__()
        self._colours = coloured

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Give the record's line, and its traceback below."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname.lower():7}"
        fields = "".join(f"  {name}={_shown(value)}" for name, value in _fields(record).items())
        if self._colours:
            clock, fields = f"{_DIM}{clock}{_PLAIN}", fields and f"{_DIM}{fields}{_PLAIN}"
            level = f"{self._colours.get(record.levelno, '')}{level}{_PLAIN}"
        line = f"{clock} {level} {_printable(record.getMessage())}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, _FIELDS, {})
    return fields


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if text and " " not in text and text.isprintable() else repr(text)


def _printable(text: str) -> str:
    """A message of others, without what would move a terminal's cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def configure(options: Logging, stream: TextIO | None = None) -> None:
    """Send what this process logs to `stream` (standard error), as configured; replaces an earlier configuration."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    is_console = options.format is LogFormat.CONSOLE or (options.format is LogFormat.AUTO and terminal)
    handler = Lines(stream, options.lines_per_second)
    handler.setFormatter(ConsoleLine(_COLOURS if terminal else {}) if is_console else JsonLine())
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, Lines):
            root.removeHandler(old)
            old.close()
    root.addHandler(handler)
    root.setLevel(options.level.value.upper())
