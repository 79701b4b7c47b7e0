"""Commands that read: history, presence, presence_stats.  Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw, Struct

from edge_config.kinds import Presence
from node.chat import parameters
from node.chat_rules import check_presence
from node.codes import CommandError, ErrorCode
from node.joining import away
from node.permissions import require
from node.protocol import HistoryResult
from node.publication import encode_publication
from node.publishing import approach, require_chat
from router.events import Away, History

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_config.kinds import RoomKind
    from node.permissions import Origin
    from node.protocol import ChannelRequest, HistoryRequest
    from node.seams import Page, Room
    from node.session import Session

_SAMPLE: Final = 'the parameters are an object such as {"channel": "..."}'


class _Channel(Struct, forbid_unknown_fields=True, gc=False):
    channel: str


_decode_channel: Final = msgspec.json.Decoder(_Channel).decode


def history(session: Session, command_id: int, request: HistoryRequest) -> None:
    """Command `history`. A position of another epoch means nothing here: then only the present position is given.

    Raises:
        CommandError: It is refused.
    """

    def read(room: Room) -> None:
        since = request.since
        if request.limit == 0 or (since is not None and since.epoch not in ("", room.epoch)):
            reply(room, [])
            return
        limits = session.options.limits
        limit = min(request.limit, limits.history_entries) if request.limit > 0 else limits.history_entries
        wanted = History(
            room.id, since.offset if since is not None else None, limit, reverse=request.reverse,
            max_bytes=limits.recovery_bytes,
        )  # fmt: skip

        def take(page: Page | Away) -> None:
            if isinstance(page, Away):
                raise away(page)
            codec = session.transport.codec
            # What is committed, but still to be handed to the members, is beyond the position that the answer gives.
            entries = (entry for entry in page.entries if entry.sequence <= room.offset)
            reply(room, [Raw(encode_publication(codec, room, entry)) for entry in entries])

        session.gateway.history(room, wanted, session.step(take))

    def reply(room: Room, publications: list[Raw]) -> None:
        result = HistoryResult(publications, room.epoch, room.offset)
        session.finish(session.transport.codec.history(command_id, result))

    _read(session, command_id, "history", request.channel, read)


def presence(session: Session, command_id: int, request: ChannelRequest) -> None:
    """Command `presence`.

    Raises:
        CommandError: It is refused.
    """

    def reply(room: Room) -> None:
        require_presence(request.channel, room.kind, Presence.ROSTER)
        session.gateway.presence(room, session.step(answer))

    def answer(there: Mapping[str, bytes]) -> None:
        session.finish(session.transport.codec.presence(command_id, there))

    _read(session, command_id, "presence", request.channel, reply)


def presence_stats(session: Session, command_id: int, request: ChannelRequest) -> None:
    """Command `presence_stats`.

    Raises:
        CommandError: It is refused.
    """

    def reply(room: Room) -> None:
        require_presence(request.channel, room.kind, Presence.COUNTS)
        session.gateway.presence_stats(room, session.step(answer))

    def answer(counts: tuple[int, int]) -> None:
        session.finish(session.transport.codec.presence_stats(command_id, *counts))

    _read(session, command_id, "presence", request.channel, reply)


def require_presence(channel: str, kind: RoomKind, least: Presence) -> None:
    """Refuse what a kind of rooms does not tell of who is there.

    Raises:
        CommandError: 108.
    """
    if kind.presence is Presence.OFF or (kind.presence is Presence.COUNTS and least is Presence.ROSTER):
        raise CommandError(ErrorCode.NOT_AVAILABLE, f"presence is {kind.presence.value} in {channel!r}")


def _read(session: Session, command_id: int, what: str, channel: str, then: Callable[[Room], None]) -> None:
    def check(kind: RoomKind, origin: Origin | None) -> None:
        who = kind.read_history if what == "history" else kind.read_presence
        require(who, session.identity, origin, f"{what} of {channel!r}")

    def opened(room: Room) -> None:
        check_presence(session.user, room, session.gateway.wall_ms())
        then(room)

    approach(session, channel, command_id, opened, check)


def channel_of(data: bytes | Raw) -> str:
    """The room of an rpc that is given nothing else.

    Raises:
        CommandError: 107; the data has not the shape.
    """
    return parameters(_decode_channel, data, _Channel.__struct_fields__, _SAMPLE).channel


def visit(session: Session, command_id: int, channel: str, what: str, then: Callable[[Room], None]) -> None:
    """Open a chat room that the client is in, or whose history it may read; everything waits behind the command.

    Args:
        session: The client.
        command_id: Of the running command.
        channel: The room's.
        what: For the text of a refusal: what is asked of the room.
        then: What is done in the room.

    Raises:
        CommandError: It is refused.
    """

    def check(kind: RoomKind, origin: Origin | None) -> None:
        if origin is None:
            require(kind.read_history, session.identity, None, f"{what} in {channel!r}")

    def opened(room: Room) -> None:
        require_chat(room)
        check_presence(session.user, room, session.gateway.wall_ms())
        then(room)

    approach(session, channel, command_id, opened, check)
