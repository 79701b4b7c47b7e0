"""Every code that a client sees: errors in replies, unsubscribe codes, disconnect codes.  The only place of them.

Numbers and texts are those of the Centrifuge client protocol, which SDKs know. Ranges carry meaning there: unsubscribe
codes from 2500 on make an SDK subscribe again; disconnect codes from 3500 on (and 4500-4999) make it stay away.
"""

from __future__ import annotations

from enum import IntEnum
from math import ceil
from typing import Final, Self

REASON_BYTES: Final = 123  # of a close frame (RFC 6455, 5.5: a control frame has 125, two are the code)


class ErrorCode(IntEnum):
    """Codes of error replies.

    Attributes:
        text: What the SDKs show.
        temporary: The same command may succeed later; SDKs try again by themselves.
    """

    text: str
    temporary: bool

    def __new__(cls, code: int, text: str, *traits: str) -> Self:
        """A member of the table."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.text, member.temporary = text, "temporary" in traits
        return member

    INTERNAL = 100, "internal server error", "temporary"
    UNAUTHORIZED = 101, "unauthorized"
    UNKNOWN_CHANNEL = 102, "unknown channel"
    PERMISSION_DENIED = 103, "permission denied"
    METHOD_NOT_FOUND = 104, "method not found"
    ALREADY_SUBSCRIBED = 105, "already subscribed"
    LIMIT_EXCEEDED = 106, "limit exceeded"
    BAD_REQUEST = 107, "bad request"
    NOT_AVAILABLE = 108, "not available"
    TOKEN_EXPIRED = 109, "token expired", "temporary"
    """Temporary, so that SDKs fetch a new token in answer to `refresh` and `sub_refresh`, too, where the code alone
    means nothing to them and a final error ends the connection."""
    EXPIRED = 110, "expired"
    TOO_MANY_REQUESTS = 111, "too many requests", "temporary"
    UNRECOVERABLE_POSITION = 112, "unrecoverable position"


class UnsubscribeCode(IntEnum):
    """Codes of unsubscribe pushes."""

    text: str

    def __new__(cls, code: int, text: str) -> Self:
        """A member of the table."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.text = text
        return member

    SERVER = 2000, "server unsubscribe"
    INSUFFICIENT_STATE = 2500, "insufficient state"
    EXPIRED = 2501, "subscription expired"
    STATE_INVALIDATED = 2502, "state invalidated"

    @property
    def resubscribes(self) -> bool:
        """Whether SDKs subscribe again."""
        return self >= 2500


class DisconnectCode(IntEnum):
    """Codes of close frames."""

    text: str

    def __new__(cls, code: int, text: str) -> Self:
        """A member of the table."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.text = text
        return member

    NORMAL = 3000, "connection closed"
    SHUTDOWN = 3001, "shutdown"
    SERVER_ERROR = 3004, "internal server error"
    EXPIRED = 3005, "connection expired"
    SUBSCRIPTION_EXPIRED = 3006, "subscription expired"
    SLOW = 3008, "slow"
    WRITE_ERROR = 3009, "write error"
    INSUFFICIENT_STATE = 3010, "insufficient state"
    FORCE_RECONNECT = 3011, "force reconnect"
    NO_PONG = 3012, "no pong"
    TOO_MANY_REQUESTS = 3013, "too many requests"
    STATE_INVALIDATED = 3014, "state invalidated"
    INVALID_TOKEN = 3500, "invalid token"
    BAD_REQUEST = 3501, "bad request"
    STALE = 3502, "stale"
    FORCE_NO_RECONNECT = 3503, "force disconnect"
    CONNECTION_LIMIT = 3504, "connection limit"
    CHANNEL_LIMIT = 3505, "channel limit"
    INAPPROPRIATE_PROTOCOL = 3506, "inappropriate protocol"
    PERMISSION_DENIED = 3507, "permission denied"
    NOT_AVAILABLE = 3508, "not available"
    TOO_MANY_ERRORS = 3509, "too many errors"

    @property
    def reconnects(self) -> bool:
        """Whether SDKs connect again."""
        return self < 3500


CLOSE_TEXTS: Final = {int(code): code.text for code in DisconnectCode}


class Disconnect(Exception):
    """Ends the connection.

    Attributes:
        code: Why.
        reason: The code's text with what is wrong, short enough for a close frame.
    """

    def __init__(self, code: DisconnectCode, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code, self.reason = code, close_reason(code.text, detail)


class CommandError(Exception):
    """Answers a command with an error.

    Attributes:
        code: Why.
        message: The code's text with the thing, the value and the mend.
        retry_after: Seconds after which the same may be tried again; 0.0: nobody can say.
    """

    def __init__(self, code: ErrorCode, detail: str = "", retry_after: float = 0.0) -> None:
        super().__init__(code, detail)
        self.code, self.retry_after = code, retry_after
        self.message = f"{code.text}: {detail}" if detail else code.text


def too_many(wait: float, limit: str = "") -> CommandError:
    """Error 111, with the seconds to wait in words and as a number, and the limit that says so."""
    seconds = ceil(wait * 10) / 10  # never too early
    detail = f"wait {seconds:.1f} s ({limit})" if limit else f"wait {seconds:.1f} s"
    return CommandError(ErrorCode.TOO_MANY_REQUESTS, detail, seconds)


def close_reason(text: str, detail: str) -> str:
    """`text: detail`, cut to what a close frame holds."""
    reason = f"{text}: {detail}" if detail else text
    return reason.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore")
