"""What is kept of a receiver in the data directory: how far it has got, and its dead letters.

In `webhooks/SITE/` each receiver has ``NAME.json``, replaced as a whole, and ``NAME.dead``, a JSON object a line, which
only grows until it has too many or some of them were sent again. Dead letters of the log have no text: it is read from
the log when they are sent, so that what was removed meanwhile stays so.

``NAME.replay`` is a wish of an operator, and ``NAME.replayed`` what became of it.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from node import whole_file
from node.faults import NodeFault
from node.webhook_delivery import Letter, Note

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from node.webhook_target import TargetId

FOLDER: Final = "webhooks"
VERSION: Final = 1
NO_LSN: Final = 0  # of a dead letter that is not of the log

T = TypeVar("T")


class WebhookFault(NodeFault):
    """A file of a webhook can't be used."""


class Progress(Struct, kw_only=True):
    """How far a receiver has got.

    Attributes:
        birth: Of the log that the cursor is about.
        cursor: By shard, up to where everything is delivered or kept as dead letters.
        delivered: Events that it has taken.
        delivered_at: Milliseconds since 1970 when it took the last of them; so are the other moments.
        failing_since: When it began to fail; None: it does not.
        error: What went wrong last.
        error_at: When.
        waiting: Events that were read and not delivered, when this was written; there may be more in the log.
        oldest: When the oldest of them happened.
        lost_letters: Dead letters that were dropped as there were too many.
    """

    version: int = VERSION
    birth: str
    cursor: dict[int, int]
    delivered: int = 0
    delivered_at: int | None = None
    failing_since: int | None = None
    error: str = ""
    error_at: int | None = None
    waiting: int = 0
    oldest: int | None = None
    lost_letters: int = 0


class DeadLetter(Struct, kw_only=True, omit_defaults=True):
    """An event that its receiver did not take.

    Attributes:
        id: As receivers know it.
        event: Its name.
        ts: When it happened, in milliseconds since 1970.
        at: When it was given up.
        why: The reason.
        shard: Where it stands in the log; so does `lsn`, which is `NO_LSN` for what nothing else keeps.
        size: Bytes that it takes there.
        body: The event itself, if it is not of the log.
    """

    id: str
    event: str = ""
    ts: int
    at: int
    why: str
    shard: int = 0
    lsn: int = NO_LSN
    size: int = 0
    body: Raw = Raw(b"")

    @classmethod
    def of_letter(cls, letter: Letter, at: int, why: str) -> DeadLetter:
        """An event of the log that is given up."""
        return cls(
            id=letter.id, event=letter.event, ts=letter.ts, at=at, why=why, shard=letter.shard, lsn=letter.lsn,
            size=letter.size,
        )  # fmt: skip

    @classmethod
    def of_note(cls, note: Note, at: int, why: str) -> DeadLetter:
        """An event that is given up and that nothing else keeps."""
        return cls(id=note.id, ts=note.ts, at=at, why=why, body=Raw(note.body))

    @property
    def content(self) -> Letter | Note:
        """The event."""
        if self.lsn == NO_LSN:
            return Note(self.id, self.ts, bytes(self.body))
        return Letter(self.shard, self.lsn, self.event, self.id, self.ts, self.size)


class Replay(Struct, kw_only=True):
    """What became of a wish to send dead letters again.

    Attributes:
        sent: How many the receiver has taken.
        left: How many are dead letters still.
        error: Why; empty: all was taken.
    """

    sent: int
    left: int
    error: str = ""


_decode_dead: Final = msgspec.json.Decoder(DeadLetter).decode


class TargetFiles:
    """The files of one receiver; every call blocks.

    Args:
        data_dir: The node's.
        target: Whose.

    Raises:
        WebhookFault: Of all methods: the disk fails, or a file is not what was written.
    """

    def __init__(self, data_dir: Path, target: TargetId) -> None:
        self._folder = data_dir / FOLDER / target.site
        self._name = target.name
        self.progress_path = self._path("json")
        self.dead_path = self._path("dead")
        self.wish_path = self._path("replay")
        self.answer_path = self._path("replayed")

    def progress(self) -> Progress | None:
        """How far the receiver has got; None: it is new."""
        found = self._read(self.progress_path, Progress)
        if found is not None and found.version != VERSION:
            raise WebhookFault(f"{self.progress_path} is of version {found.version}; this program reads {VERSION}.")
        return found

    def begin(self, progress: Progress) -> None:
        """Write down where a receiver begins."""
        self._write(self.progress_path, msgspec.json.encode(progress))

    def keep(self, progress: Progress, *, durable: bool = True) -> None:
        """Write down how far the receiver has got, unless it was forgotten meanwhile."""
        if self.progress_path.exists():
            self._write(self.progress_path, msgspec.json.encode(progress), durable=durable)

    # -- dead letters --------------------------------------------------------------------------------------------

    def dead(self) -> list[DeadLetter]:
        """All dead letters, each once, oldest first."""
        try:
            lines = self.dead_path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unusable(self.dead_path, error) from error
        lines.pop()  # what follows the last line end: nothing, or what was written when the node was killed
        try:
            return list({letter.id: letter for letter in map(_decode_dead, lines)}.values())
        except msgspec.MsgspecError as error:
            raise WebhookFault(f"{self.dead_path} can't be used: {error}. Mend it, or take it away.") from error

    def bury(self, letters: Sequence[DeadLetter], most: int) -> int:
        """Add dead letters; they are on the disk when this returns. Gives how many old ones were dropped for them."""
        known = self.dead()
        kept = deque({letter.id: letter for letter in (*known, *letters)}.values(), most)
        if not known or len(known) + len(letters) > most:
            dropped = len({letter.id for letter in (*known, *letters)}) - len(kept)
            self.replace_dead(kept)
            return dropped
        self._append(_lines(letters))
        return 0

    def replace_dead(self, letters: Iterable[DeadLetter]) -> None:
        """Have these dead letters and no others."""
        self._write(self.dead_path, _lines(letters))

    def _append(self, lines: bytes) -> None:
        try:
            content = self.dead_path.read_bytes()
            whole = content.rfind(b"\n") + 1
            with self.dead_path.open("r+b") as file:
                file.truncate(whole)
                file.seek(whole)
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unusable(self.dead_path, error) from error

    # -- wishes of operators -------------------------------------------------------------------------------------

    def wish(self) -> None:
        """Ask the node to send the dead letters again."""
        self.answer_path.unlink(missing_ok=True)
        self._write(self.wish_path, b"{}\n")

    def is_wished(self) -> bool:
        """Whether somebody asked for that."""
        return self.wish_path.exists()

    def grant(self, replay: Replay) -> None:
        """Say what became of the wish."""
        self._write(self.answer_path, msgspec.json.encode(replay))
        self.wish_path.unlink(missing_ok=True)

    def answer(self) -> Replay | None:
        """What became of the wish; None: nothing yet."""
        return self._read(self.answer_path, Replay)

    def forget(self) -> None:
        """Remove all files: the receiver begins anew if there is one of its name again."""
        try:
            for path in (self.progress_path, self.dead_path, self.wish_path, self.answer_path):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(self._folder, error) from error

    # -- inside --------------------------------------------------------------------------------------------------

    def _path(self, suffix: str) -> Path:
        return self._folder / f"{self._name}.{suffix}"

    def _read(self, path: Path, form: type[T]) -> T | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=form)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(path, error) from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            mend = "Restore it from a backup, or take it away: then the webhook begins at the log's end."
            raise WebhookFault(f"{path} can't be used: {error}. {mend}") from error

    def _write(self, path: Path, content: bytes, *, durable: bool = True) -> None:
        try:
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                for folder in (self._folder.parent, self._folder.parent.parent):
                    whole_file.sync_folder(folder)
            whole_file.replace(path, content, durable=durable)
        except OSError as error:
            raise _unusable(path, error) from error


def _lines(letters: Iterable[DeadLetter]) -> bytes:
    return b"".join(msgspec.json.encode(letter) + b"\n" for letter in letters)


def _unusable(path: Path, error: OSError) -> WebhookFault:
    return WebhookFault(f"{path} can't be used: {error.strerror}. Free space, or mend its permissions.")
