"""Methods of the server API that list what is on this node: rooms, users, members, figures.  Sans-I/O.

Each is gone through in slices, so that clients need not wait for it. What comes or goes meanwhile may be in the list or
not; what stays is in it once. Pages are in the order of names, and a page begins behind the last name of the one before
it, so nothing is missed or given twice because others come and go.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from edge_config.kinds import Presence
from node import api_calls as calls
from node.reading import require_presence

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from node.api_methods import Done, Methods
    from node.seams import Room
    from node.tenant import Tenant

T = TypeVar("T")
SLICE: Final = 64  # names that are looked at at once: some ten microseconds, or three milliseconds with a mean pattern

_encode: Final = msgspec.json.Encoder().encode


def channels(methods: Methods, site: str, request: calls.ChannelsRequest, done: Done) -> Iterator[None]:
    """Method `channels`: all of them, as of Centrifugo, in no order."""
    rooms, fits = methods.gateway.tenant(site).rooms, _matcher(request.pattern)
    parts = []
    for names in sliced(rooms):
        found = {name: calls.ChannelInfo(rooms[name].members) for name in names if name in rooms and fits(name)}
        if found:
            parts.append(_encode(found)[1:-1])
        yield
    done(b'{"channels":{%b}}' % b",".join(parts))


def rooms(methods: Methods, site: str, request: calls.RoomsRequest, done: Done) -> Iterator[None]:
    """Method `rooms`."""
    there = methods.gateway.tenant(site).rooms
    names, cursor = yield from _page(there, request, _matcher(request.pattern))
    parts = []
    for some in sliced(names):
        parts += [_encode(room_info(there[name])) for name in some if name in there]
        yield
    done(_listed("rooms", parts, cursor))


def users(methods: Methods, site: str, request: calls.UsersRequest, done: Done) -> Iterator[None]:
    """Method `users`."""
    tenant = methods.gateway.tenant(site)
    names, cursor = yield from _page(tenant.users, request, _matcher(request.pattern))
    parts = []
    for some in sliced(names):
        parts += [_encode(_user(tenant, name)) for name in some if name in tenant.users]
        yield
    done(_listed("users", parts, cursor))


def _user(tenant: Tenant[Room], name: str) -> calls.ListedUser:
    connections = tenant.of(name)
    return calls.ListedUser(
        name, len(connections), sum(len(connection.subscriptions) for connection in connections.values())
    )


def members(methods: Methods, site: str, request: calls.MembersRequest, done: Done) -> Iterator[None]:
    """Method `members`."""
    _, kind = methods.options.kinds.find(request.channel)
    require_presence(request.channel, kind, Presence.ROSTER)
    return _members(methods, site, request, done)


def _members(methods: Methods, site: str, request: calls.MembersRequest, done: Done) -> Iterator[None]:
    room = methods.gateway.tenant(site).rooms.get(request.channel)
    there = {} if room is None else room.users
    names, cursor = yield from _page(there, request, _matcher(""))
    parts = []
    for some in sliced(names):
        found = {name: there[name] for name in some if name in there}
        if found:
            parts.append(_encode(found)[1:-1])
        yield
    done(b'{"members":{%b},"cursor":%b}' % (b",".join(parts), _encode(cursor)))


def user_info(methods: Methods, site: str, request: calls.UserInfoRequest, done: Done) -> None:
    """Method `user_info`; as many rooms as `limits` allow a user."""
    connections = [
        calls.Connected(user.client, user.identity.role, user.identity.guest, sorted(user.subscriptions))
        for user in methods.gateway.tenant(site).of(request.user).values()
    ]
    done(_encode(calls.UserInfoResult(request.user, connections)))


def info(methods: Methods, site: str, request: calls.InfoRequest, done: Done) -> None:
    """Method `info`."""
    del request
    gateway, tenant = methods.gateway, methods.gateway.tenant(site)
    uptime = int(methods.world.monotonic() - methods.started)
    node = calls.NodeInfo(
        gateway.node, gateway.node, gateway.version, tenant.connections, len(tenant.users), tenant.subscriptions,
        len(tenant.rooms), uptime,
    )  # fmt: skip
    done(_encode(calls.InfoResult([node])))


def room_info(room: Room) -> calls.RoomInfo:
    """A room as it stands."""
    return calls.RoomInfo(room.id.channel, room.kind.name, room.offset, room.epoch, room.members, len(room.users))


def _matcher(pattern: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(pattern)).match if pattern else bool


def sliced(names: Iterable[T]) -> Iterator[list[T]]:
    """What there is now, a few at a time."""
    everything = list(names)  # which takes a millisecond for 100,000
    for start in range(0, len(everything), SLICE):
        yield everything[start : start + SLICE]


def _page(
    names: Iterable[str], request: calls.PageRequest, fits: Callable[[str], object]
) -> Generator[None, None, tuple[list[str], str]]:
    """The next names in their order, and the cursor of the page after them."""
    after, most = request.cursor, request.limit + 1
    found: list[str] = []
    last = ""  # no name beyond it can be on the page; empty: not known yet
    for some in sliced(names):
        found += [name for name in some if name > after and (not last or name < last) and fits(name)]
        if len(found) >= 2 * most:
            found.sort()
            del found[most:]
            last = found[-1]
        yield
    found.sort()
    page = found[: request.limit]
    return page, page[-1] if len(found) > len(page) else ""


def _listed(name: str, parts: list[bytes], cursor: str) -> bytes:
    return b'{"%b":[%b],"cursor":%b}' % (name.encode(), b",".join(parts), _encode(cursor))
