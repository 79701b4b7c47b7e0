"""What the node has done so far, as plain numbers: sessions count here, and somebody else exports it."""

from __future__ import annotations

from collections import Counter


class Counters:
    """Sums over all sessions of this node since it started; each only rises.

    Attributes:
        commands: Commands started, by name.
        errors: Error replies, by code.
        limited: Commands refused with 111, by the limit's name.
        closes: Closes that a session asked for, by code.
        recoveries: Recoveries by outcome: `recovered`, `unrecoverable` (told so), `refused` (100: retry).
        recovered_entries: Entries given to clients in recoveries.
        unsubscribes: Unsubscribe pushes, by code.
        pauses: Times that a client was not read because too much of its was waiting.
        timeouts: Commands that were answered 100 because their time was up.
        guests: New guest ids given.
        tokens_refused: Tokens that were not accepted at connect or refresh, by reason.
        connects: Clients that connected, by site.
    """

    __slots__ = (
        "closes", "commands", "connects", "errors", "guests", "limited", "pauses", "recovered_entries", "recoveries",
        "timeouts", "tokens_refused", "unsubscribes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.commands: Counter[str] = Counter()
        self.errors: Counter[int] = Counter()
        self.limited: Counter[str] = Counter()
        self.closes: Counter[int] = Counter()
        self.recoveries: Counter[str] = Counter()
        self.unsubscribes: Counter[int] = Counter()
        self.tokens_refused: Counter[str] = Counter()
        self.connects: Counter[str] = Counter()
        self.recovered_entries = 0
        self.pauses = 0
        self.timeouts = 0
        self.guests = 0
