"""What can go wrong for a user of the client.  Sans-I/O.

ClientFault
  Refused             the node answered no; nothing happened
  NotSent             given up before anything was sent; nothing happened
  OutcomeUnknown      sent, but not answered: send it again with the same id
  OutboxFull          too much waits to be sent; nothing happened
  TimedOut            a request that changes nothing was not answered in time: ask again
  Unreachable         there was no connection to the node in time
  ConnectionEnded     the node does not want this client back, or the client was closed
  SubscriptionEnded   the node ended a subscription for good
"""

from __future__ import annotations

from typing_extensions import override


class ClientFault(Exception):
    """Base of what the client raises."""


class Refused(ClientFault):
    """The node answered with an error; nothing happened.

    Attributes:
        code: As in `node.codes.ErrorCode`: 103 permission denied, 107 bad request, 108 not available, ...
        reason: The node's text: the thing, the value, the mend.
        temporary: The same may be taken later, as with 111, whose text has the seconds to wait.
    """

    def __init__(self, code: int, reason: str, *, temporary: bool = False) -> None:
        super().__init__(code, reason)
        self.code, self.reason, self.temporary = code, reason, temporary

    @override
    def __str__(self) -> str:
        return f"refused with {self.code}: {self.reason}"


class NotSent(ClientFault):
    """Given up before anything was sent; nothing happened."""


class OutcomeUnknown(ClientFault):
    """It was sent, and no answer came: it may have happened or not.

    Attributes:
        id: Of the message: to send it again with the same id does no harm, and tells. Empty: it has none.
    """

    def __init__(self, message_id: str, why: str) -> None:
        super().__init__(message_id, why)
        self.id, self._why = message_id, why

    @override
    def __str__(self) -> str:
        return f"outcome unknown: {self._why}" + (f"; send it again with id={self.id!r}" if self.id else "")


class OutboxFull(ClientFault):
    """So many messages wait already that this one was not taken; nothing happened."""


class TimedOut(ClientFault):
    """A request that changes nothing was not answered in time: ask again."""


class Unreachable(ClientFault):
    """There was no connection to the node in time."""


class ConnectionEnded(ClientFault):
    """There is no connection any more, and there won't be one.

    Attributes:
        code: The node's close code (3500 and more, see `node.codes.DisconnectCode`), the error that refused the connect
            command, or 0: this side ended it.
        reason: Why.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason

    @override
    def __str__(self) -> str:
        return f"the connection has ended with {self.code}: {self.reason}" if self.code else self.reason


class SubscriptionEnded(ClientFault):
    """The node ended, or never admitted, a subscription.

    Attributes:
        channel: Of which room.
        code: An unsubscribe code below 2500, or the error that refused the subscribe command.
        reason: Why.
    """

    def __init__(self, channel: str, code: int, reason: str) -> None:
        super().__init__(channel, code, reason)
        self.channel, self.code, self.reason = channel, code, reason

    @override
    def __str__(self) -> str:
        return f"the subscription to {self.channel!r} has ended with {self.code}: {self.reason}"
