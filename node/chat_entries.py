"""What members do to a chat room's messages: edits, removals, reactions, pins.  Sans-I/O.

Each is an entry with an offset of its own, whose `target` is the sequence of a message. The log keeps what the client
gave, and the type, in one order, so that a retry has the same bytes.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from node.chat import bad, bound, check_id, parameters
from router.entry import Kind

if TYPE_CHECKING:
    from edge_config.limits import Limits

EMOJI_BYTES: Final = 64  # the longest, a family of four with skin tones, has 41; a site's own `:name:` fits
REASON_BYTES: Final = 255  # of a removal: a sentence
_PLAIN: Final = re.compile("[\x00-\x20\x7f-\xa0\u2028\u2029]")


class Right(Enum):
    """Who may act on a message, beside whoever the room's kind keeps out."""

    ANYONE = "whoever may publish here"
    AUTHOR = "the message's author"
    AUTHOR_OR_MODERATOR = "the message's author, moderators and owners"
    MODERATOR = "moderators and owners"


class Aimed(Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    """Parameters of an rpc about a message; those of `pin`, `unpin` and `restore`.

    Attributes:
        channel: The room.
        id: The client's id of the new entry, the same in every retry.
        target: Sequence of the message.
    """

    channel: str
    id: str
    target: int


class Edit(Aimed, forbid_unknown_fields=True, gc=False, kw_only=True):
    """Parameters of `edit`."""

    content: str


class Delete(Aimed, forbid_unknown_fields=True, gc=False, kw_only=True):
    """Parameters of `delete`."""

    reason: str = ""


class React(Aimed, forbid_unknown_fields=True, gc=False, kw_only=True):
    """Parameters of `react` and `unreact`."""

    emoji: str


class Action(NamedTuple):
    """An rpc that makes an entry about a message.

    Attributes:
        rpc: Its name.
        name: The entry's type, as clients see it.
        kind: Of the entry, in the log.
        right: Who may.
        parameters: What a client gives.
    """

    rpc: str
    name: str
    kind: Kind
    right: Right
    parameters: type[Aimed]


ACTIONS: Final = {
    action.rpc: action
    for action in (
        Action("edit", "edit", Kind.EDIT, Right.AUTHOR, Edit),
        Action("delete", "removed", Kind.REMOVED, Right.AUTHOR_OR_MODERATOR, Delete),
        Action("restore", "restored", Kind.RESTORED, Right.MODERATOR, Aimed),
        Action("react", "reaction", Kind.REACTION, Right.ANYONE, React),
        Action("unreact", "unreaction", Kind.REACTION, Right.ANYONE, React),
        Action("pin", "pin", Kind.PIN, Right.MODERATOR, Aimed),
        Action("unpin", "unpin", Kind.PIN, Right.MODERATOR, Aimed),
    )
}
"""By the rpc's name."""

_SIGNED: Final = frozenset({Kind.REMOVED, Kind.RESTORED})
_encode: Final = msgspec.json.Encoder().encode
_decoders: Final = {
    action.parameters: msgspec.json.Decoder(action.parameters).decode for action in ACTIONS.values()
}  # fmt: skip


def _sample(kind: type[Aimed]) -> str:
    own = [f'"{field}": "..."' for field in kind.__struct_fields__[3:]]
    shown = ", ".join(['"channel": "..."', '"id": "<uuid>"', '"target": 12', *own])
    return f"the parameters are an object such as {{{shown}}}"


_SAMPLES: Final = {kind: _sample(kind) for kind in _decoders}


def parse(action: Action, data: bytes | Raw) -> Aimed:
    """The parameters that a client gave.

    Raises:
        CommandError: 107; the data has not the shape.
    """
    kind = action.parameters
    return parameters(_decoders[kind], data, kind.__struct_fields__, _SAMPLES[kind])


def check(given: Aimed, limits: Limits) -> None:
    """Check what a client gave against the limits of the configuration.

    Raises:
        CommandError: 107; names the field, what is wrong with it, and the mend.
    """
    check_id(given.id, limits)
    if isinstance(given, Edit):
        if not given.content:
            raise bad("content is empty; to take the message away, use delete")
        bound("content", given.content, limits.content_bytes)
    elif isinstance(given, Delete):
        bound("reason", given.reason, REASON_BYTES)
    elif isinstance(given, React):
        if not given.emoji or _PLAIN.search(given.emoji):
            raise bad(f"emoji is {given.emoji!r}; give one emoji, or a name such as :wave:, without spaces")
        bound("emoji", given.emoji, EMOJI_BYTES)
    if (size := len(_encode(given))) > limits.body_bytes:
        raise bad(f"the parameters are {size} bytes long, at most {limits.body_bytes} are taken")


def canonical(action: Action, given: Aimed, by: str) -> bytes:
    """The bytes that the log keeps.

    Args:
        action: The rpc.
        given: Of `parse`, checked by `check`.
        by: As what a message is removed or restored: author or moderator. A message's author never changes, so it is
            the same in a retry.
    """
    body: dict[str, Any] = {"id": given.id, "type": action.name, "target": given.target}
    if action.kind in _SIGNED:
        body["by"] = by
    if isinstance(given, Edit):
        body["content"] = given.content
    elif isinstance(given, React):
        body["emoji"] = given.emoji
    elif isinstance(given, Delete) and given.reason:
        body["reason"] = given.reason
    return _encode(body)
