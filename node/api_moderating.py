"""Methods of the server API that moderate chat rooms: what moderators do, and what they have laid down.  Sans-I/O.

They make the same entries as the rpcs of clients. The key's scope is the right to all of them: what `by` may do is not
asked, as a site's back end knows its moderators.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw

from node import api_calls as calls
from node import chat_acting, chat_clearing, chat_entries, chat_ruling
from node.api_listing import room_info as listed
from node.api_listing import sliced
from node.api_methods import Awaited, Placeless
from node.auth import USER_BYTES
from node.chat import SYSTEM, bound, timestamp
from node.chat_entries import Right
from node.chat_rules import RULINGS, Given, Rules, canonical, holds
from node.protocol import json_string
from node.publishing import require_chat
from router.entry import Kind
from router.events import Submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from node.api_methods import Done, Methods
    from node.seams import Room
    from router.entry import Entry

_encode: Final = msgspec.json.Encoder().encode


def ruling(name: str) -> Callable[[Methods, str, calls.RuleRequest, Done], None]:
    """The method that lays down what an rpc of `chat_rules.RULINGS` does."""
    rule = RULINGS[name]

    def perform(methods: Methods, site: str, request: calls.RuleRequest, done: Done) -> None:
        given = Given(
            channel=request.channel,
            id=_key(methods, request),
            user=request.user if isinstance(request, calls.RuleUserRequest) else "",
            seconds=request.seconds if isinstance(request, calls.RestrictRequest | calls.SlowRequest) else 0,
            role=request.role if isinstance(request, calls.GrantRequest) else "",
            title=request.title if isinstance(request, calls.RenameRequest) else "",
        )
        chat_ruling.check(rule, given, methods.options.limits)

        def opened(room: Room) -> None:
            require_chat(room)
            chat_ruling.require_space(room, rule, given.user, methods.options.limits.room_rules)
            data = canonical(rule, given, request.by or SYSTEM)
            awaited = Placeless(room, done)
            methods.gateway.submit(room, _submit(methods, room, Kind.META, request, given.id, data, awaited))

        methods.open(site, request.channel, opened, done)

    return perform


def acting(name: str) -> Callable[[Methods, str, calls.MessageRequest, Done], None]:
    """The method that does to a message what an rpc of `chat_entries.ACTIONS` does."""
    action = chat_entries.ACTIONS[name]

    def perform(methods: Methods, site: str, request: calls.MessageRequest, done: Done) -> None:
        what = {field: getattr(request, field) for field in action.parameters.__struct_fields__ if field != "id"}
        given = action.parameters(id=_key(methods, request), **what)
        chat_entries.check(given, methods.options.limits)

        def opened(room: Room) -> None:
            require_chat(room)
            methods.find(room, given.target, lambda entry: judge(room, entry), done)

        def judge(room: Room, entry: Entry | None) -> None:
            sender = methods.gateway.sender(site, request.by)
            undo_from = methods.gateway.wall_ms() - methods.options.undo_ms
            data, refusal = chat_acting.judge(action, given, entry, sender, undo_from, lambda: True)
            awaited = Awaited(room, done)
            submit = _submit(methods, room, action.kind, request, given.id, data, awaited)
            if entry is None and action.right is Right.AUTHOR_OR_MODERATOR:  # whose it was, nobody knows any more
                data = chat_entries.canonical(action, given, "author")
                other = _submit(methods, room, action.kind, request, given.id, data, awaited)
                other.probe = True
                awaited.otherwise = partial(methods.gateway.probe, room, other)
            methods.submit_unless(room, submit, awaited, refusal)

        methods.open(site, request.channel, opened, done)

    return perform


def clear_user(methods: Methods, site: str, request: calls.ClearUserRequest, done: Done) -> None:
    """Method `clear_user`, which does what the rpc `clear` does."""
    given = chat_clearing.Clear(request.channel, _key(methods, request), request.user, request.since, request.reason)
    chat_clearing.check(given, methods.options.limits)

    def opened(room: Room) -> None:
        require_chat(room)
        chat_clearing.check_window(given, room)
        data = chat_clearing.canonical(given, "moderator")
        submit = _submit(methods, room, Kind.REMOVED, request, given.id, data, Awaited(room, done))
        methods.gateway.submit(room, submit)

    methods.open(site, request.channel, opened, done)


def room_info(methods: Methods, site: str, request: calls.RoomInfoRequest, done: Done) -> None:
    """Method `room_info`."""
    methods.open(site, request.channel, lambda room: methods.world.slowly(_described(methods, room, done)), done)


def _described(methods: Methods, room: Room, done: Done) -> Iterator[None]:
    """Go through a room's rules, which may be many."""
    rules, now_ms = room.rules if room.rules is not None else Rules({}), methods.gateway.wall_ms()
    roles: list[bytes] = []
    for granted in sliced(rules.roles.items()):
        roles.append(_encode(dict(granted))[1:-1])
        yield
    lists = []
    for until in (rules.muted, rules.banned):
        parts = []
        for some in sliced(until):
            parts += [_encode(_restriction(user, until[user])) for user in some if holds(until, user, now_ms)]
            yield
        lists.append(Raw(b"[%b]" % b",".join(parts)))
    body = {
        **msgspec.structs.asdict(listed(room)), "schema": room.kind.schema.value,
        "roles": Raw(b"{%b}" % b",".join(roles)), "mutes": lists[0], "bans": lists[1],
        "slow_seconds": rules.slow_seconds, "locked": rules.locked, "title": rules.title,
    }  # fmt: skip
    done(_encode(body))


def _restriction(user: str, end: int) -> calls.Restriction:
    return calls.Restriction(user, timestamp(end).decode() if end else "")


def _key(methods: Methods, request: calls.RuleRequest) -> str:
    """The id of the entry."""
    bound("by", request.by, USER_BYTES)
    bound("idempotency_key", request.idempotency_key, methods.options.limits.message_id_bytes)
    return request.idempotency_key or methods.world.new_id()


def _submit(  # noqa: PLR0913, PLR0917 - the fields of a submit
    methods: Methods, room: Room, kind: Kind, request: calls.RuleRequest, key: str, data: bytes, awaited: Awaited
) -> Submit:
    sender = methods.gateway.sender(room.id.site, request.by)
    return Submit(room.id, kind, sender, key, data, json_string(request.by or SYSTEM), awaited)
