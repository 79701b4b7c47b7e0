"""Log lines: their forms, and that traffic can't flood them."""

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
from typing_extensions import override

from edge_config.schema import Level, LogFormat, Logging
from node.logs import BURST_SECONDS, Budget, ConsoleLine, JsonLine, Lines, configure, events


class Terminal(StringIO):
    @override
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of one test."""
    logger = logging.Logger("test")  # noqa: LOG001 (outside the tree, so that no test sees another's)
    yield logger
    for handler in logger.handlers:
        handler.close()


@pytest.fixture
def restored() -> Iterator[None]:
    """The root logger is as it was after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def lines(stream: StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.usefixtures("restored")
def test_machines_get_an_object_a_line() -> None:
    stream = StringIO()
    configure(Logging(), stream)
    events("node.hub").warning("connection refused", reason="full", open=3, where=("a", 1), event="x")
    (line,) = lines(stream)
    assert str(line.pop("ts")).endswith("+00:00")
    assert line == {
        "level": "warning",
        "event": "connection refused",
        "logger": "node.hub",
        "reason": "full",
        "open": 3,
        "where": ["a", 1],
        "event_": "x",
    }


@pytest.mark.usefixtures("restored")
def test_people_get_a_line_with_fields_behind_the_event() -> None:
    stream = StringIO()
    configure(Logging(format=LogFormat.CONSOLE), stream)
    events("node.hub").info("started", port=8000, seconds=0.1234567891, name="two words", empty="")
    assert stream.getvalue().rstrip()[9:] == "info    started  port=8000  seconds=0.123457  name='two words'  empty=''"


@pytest.mark.usefixtures("restored")
def test_a_terminal_gets_colours() -> None:
    stream = Terminal()
    configure(Logging(), stream)
    events("node.hub").error("halted")
    assert "\x1b[31merror  \x1b[0m halted" in stream.getvalue()


@pytest.mark.usefixtures("restored")
def test_below_the_level_nothing_is_written() -> None:
    stream = StringIO()
    configure(Logging(level=Level.WARNING), stream)
    events("node.hub").info("started")
    events("node.hub").debug("detail")
    assert not stream.getvalue()


@pytest.mark.usefixtures("restored")
def test_configuring_again_replaces_what_was() -> None:
    first, second = StringIO(), StringIO()
    configure(Logging(), first)
    configure(Logging(), second)
    events("node.hub").info("started")
    assert not first.getvalue()
    assert len(lines(second)) == 1


@pytest.mark.parametrize("formatter", [JsonLine(), ConsoleLine({})])
def test_nothing_that_a_client_sends_makes_a_line_of_its_own(
    logger: logging.Logger, formatter: logging.Formatter
) -> None:
    stream = StringIO()
    handler = Lines(stream, 10)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    logger.info("from %s", "a\nb\x1b[2J", extra={"chat_node_fields": {"user": "x\r\n\x1b]0;owned\x07"}})
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().rstrip("\n").isprintable()


@pytest.mark.parametrize("formatter", [JsonLine(), ConsoleLine({})])
def test_a_fault_of_the_program_has_its_traceback(logger: logging.Logger, formatter: logging.Formatter) -> None:
    stream = StringIO()
    handler = Lines(stream, 10)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    try:
        int("seven")
    except ValueError:
        logger.exception("failed")
    assert "test_a_fault_of_the_program" in stream.getvalue()
    assert "ValueError: invalid literal" in stream.getvalue()


def test_a_flood_is_counted_instead_of_written(logger: logging.Logger) -> None:
    stream, clock = StringIO(), Clock()
    handler = Lines(stream, 2, clock)
    handler.setFormatter(JsonLine())
    logger.addHandler(handler)
    for _ in range(1000):
        logger.warning("refused")
    logger.info("other")
    written = [line["event"] for line in lines(stream)]
    assert written == ["refused"] * int(2 * BURST_SECONDS) + ["other"]

    clock.now += BURST_SECONDS
    logger.info("other")
    told = lines(stream)[-2]
    assert (told["event"], told["of"], told["count"]) == ("lines suppressed", "refused", 1000 - 2 * BURST_SECONDS)
    logger.info("other")
    assert lines(stream)[-1]["event"] == "other"


def test_at_the_end_the_counts_are_told(logger: logging.Logger) -> None:
    stream = StringIO()
    handler = Lines(stream, 0.1, Clock())
    handler.setFormatter(JsonLine())
    logger.addHandler(handler)
    for _ in range(4):
        logger.warning("refused")
    handler.close()
    assert [line.get("count") for line in lines(stream)] == [None, 3]


def test_a_reader_that_is_gone_ends_nothing(logger: logging.Logger) -> None:
    class Gone(StringIO):
        @override
        def write(self, _: str) -> int:
            raise BrokenPipeError

    handler = Lines(Gone(), 10)
    handler.setFormatter(JsonLine())
    logger.addHandler(handler)
    logger.warning("refused")


def test_a_budget_is_spent_and_refilled() -> None:
    budget = Budget(rate=1, now=0.0)
    assert [budget.spend(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert not budget.is_calm(4.9)
    assert budget.spend(1.0)
    assert not budget.spend(1.0)
    assert budget.is_calm(6.0)
