"""A thread that reads of the log, one question after the other."""

from __future__ import annotations

import sqlite3
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from router.errors import CorruptEntry

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.completions import Completion
    from router.errors import StorageFault

_STOP: Final = object()


class Questions:
    """Questions and the thread that answers them.

    Args:
        name: Of the thread.
        answered: Called in it with each answer.
        faulty: Called in it with an error; gives what it means.
        halt: Called in it with a fault of the disk, before it is answered.
    """

    def __init__(
        self, name: str, answered: Callable[[Completion], None], faulty: Callable[[BaseException], StorageFault],
        halt: Callable[[StorageFault], None],
    ) -> None:  # fmt: skip
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._answered, self._faulty, self._halt = answered, faulty, halt
        self.thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def put(self, question: Callable[[], Completion | None]) -> None:
        """Ask what answers by itself, or not at all."""
        self._queue.put(question)

    def ask(self, answer: Callable[[Any, Any], Completion], question: Callable[[], Any], token: object) -> None:
        """Ask; answered by `answer(token, result)`, the result being a fault if there is one."""
        self._queue.put((answer, question, token))

    def stop(self) -> None:
        """End, when all before is answered."""
        self._queue.put(_STOP)

    def _serve(self) -> None:
        while (question := self._queue.get()) is not _STOP:
            try:
                answer = self._read(*question) if isinstance(question, tuple) else question()
            except (sqlite3.Error, CorruptEntry) as error:
                self._halt(self._faulty(error))
                continue
            if answer is not None:
                self._answered(answer)

    def _read(self, answer: Callable[[Any, Any], Completion], question: Callable[[], Any], token: object) -> Completion:
        try:
            return answer(token, question())
        except (sqlite3.Error, CorruptEntry) as error:
            fault = self._faulty(error)
            self._halt(fault)
            return answer(token, fault)
        except OSError as error:  # of a file beside the log, which is none the worse for it
            return answer(token, self._faulty(error))
