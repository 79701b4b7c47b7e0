"""The Protobuf of the client protocol, against the reference library and a schema of its own."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, structs

from node.codes import CommandError, ErrorCode, too_many
from node.protobuf import REPLIES, ProtobufCodec, varint
from node.protocol import (
    BODIES,
    ConnectResult,
    Expiry,
    HistoryResult,
    JsonCodec,
    ProtocolError,
    SubscribeResult,
    client_info,
    name_of,
)

CODEC: Final = ProtobufCodec(max_commands=3)

# Field numbers and types, written down a second time. `name:number:type`; a type with a capital is a message, `*` after
# it a list, `map` a map from texts.
SCHEMA: Final = {
    "Error": "code:1:uint32 message:2:string temporary:3:bool",
    "ClientInfo": "user:1:string client:2:string conn_info:3:bytes chan_info:4:bytes",
    "Publication": "data:4:bytes info:5:ClientInfo offset:6:uint64 delta:8:bool",
    "Join": "info:1:ClientInfo",
    "Leave": "info:1:ClientInfo",
    "Unsubscribe": "code:2:uint32 reason:3:string",
    "Subscribe": "recoverable:1:bool epoch:4:string offset:5:uint64 positioned:6:bool data:7:bytes",
    "Message": "data:1:bytes",
    "Disconnect": "code:1:uint32 reason:2:string reconnect:3:bool",
    "Refresh": "expires:1:bool ttl:2:uint32",
    "Push": "channel:2:string pub:4:Publication join:5:Join leave:6:Leave unsubscribe:7:Unsubscribe message:8:Message"
    " subscribe:9:Subscribe disconnect:11:Disconnect refresh:12:Refresh",
    "SubscribeRequest": "channel:1:string token:2:string recover:3:bool epoch:6:string offset:7:uint64 data:8:bytes"
    " positioned:9:bool recoverable:10:bool join_leave:11:bool delta:12:string flag:14:int64",
    "SubsRequest": "key:1:string value:2:SubscribeRequest",
    "ConnectRequest": "token:1:string data:2:bytes subs:3:SubsRequest* name:4:string version:5:string",
    "ChannelRequest": "channel:1:string",
    "PublishRequest": "channel:1:string data:2:bytes",
    "StreamPosition": "offset:1:uint64 epoch:2:string",
    "HistoryRequest": "channel:1:string limit:7:int32 since:8:StreamPosition reverse:9:bool",
    "Empty": "",
    "DataRequest": "data:1:bytes",
    "RpcRequest": "data:1:bytes method:2:string",
    "RefreshRequest": "token:1:string",
    "SubRefreshRequest": "channel:1:string token:2:string",
    "Command": "id:1:uint32 connect:4:ConnectRequest subscribe:5:SubscribeRequest unsubscribe:6:ChannelRequest"
    " publish:7:PublishRequest presence:8:ChannelRequest presence_stats:9:ChannelRequest history:10:HistoryRequest"
    " ping:11:Empty send:12:DataRequest rpc:13:RpcRequest refresh:14:RefreshRequest sub_refresh:15:SubRefreshRequest",
    "SubscribeResult": "expires:1:bool ttl:2:uint32 recoverable:3:bool epoch:6:string publications:7:Publication*"
    " recovered:8:bool offset:9:uint64 positioned:10:bool data:11:bytes was_recovering:12:bool delta:13:bool",
    "SubsResult": "key:1:string value:2:SubscribeResult",
    "ConnectResult": "client:1:string version:2:string expires:3:bool ttl:4:uint32 data:5:bytes subs:6:SubsResult*"
    " ping:7:uint32 pong:8:bool session:9:string node:10:string",
    "RefreshResult": "client:1:string version:2:string expires:3:bool ttl:4:uint32",
    "SubRefreshResult": "expires:1:bool ttl:2:uint32",
    "Member": "key:1:string value:2:ClientInfo",
    "PresenceResult": "presence:1:Member*",
    "PresenceStatsResult": "num_clients:1:uint32 num_users:2:uint32",
    "HistoryResult": "publications:1:Publication* epoch:2:string offset:3:uint64",
    "RpcResult": "data:1:bytes",
    "Reply": "id:1:uint32 error:2:Error push:4:Push connect:5:ConnectResult subscribe:6:SubscribeResult"
    " unsubscribe:7:Empty publish:8:Empty presence:9:PresenceResult presence_stats:10:PresenceStatsResult"
    " history:11:HistoryResult ping:12:Empty rpc:13:RpcResult refresh:14:RefreshResult sub_refresh:15:SubRefreshResult",
}


def _reference() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field in fields.split():
            label, number, kind = field.split(":")
            made = message.field.add(name=label, number=int(number), label=3 if kind.endswith("*") else 1)
            kind = kind.rstrip("*")
            if kind[0].isupper():
                made.type, made.type_name = 11, f".t.{kind}"
            else:
                made.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


POOL: Final = _reference()


def reference(name: str) -> Any:  # noqa: ANN401 - a class made at run time
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"t.{name}"))


def delimited(message: bytes) -> bytes:
    return varint(len(message)) + message


def command(**fields: Any) -> bytes:  # noqa: ANN401 - the reference's arguments
    return delimited(reference("Command")(**fields).SerializeToString())


def reply(payload: bytes) -> dict[str, Any]:
    """What the reference reads of one reply; bytes as texts."""
    size, shift, at = 0, 0, 0
    while True:
        size |= (payload[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if payload[at - 1] < 128:
            break
    assert len(payload) == at + size
    read = reference("Reply").FromString(payload[at:])
    assert read.SerializeToString() == payload[at:], "the reference writes it in the same way, so no field is unknown"
    return _plain(read)


def _plain(message: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    plain: dict[str, Any] = {}
    for field, value in message.ListFields():
        plain[field.name] = (
            [_plain(v) for v in value] if field.is_repeated
            else _plain(value) if field.message_type
            else value.decode() if isinstance(value, bytes)
            else value
        )  # fmt: skip
    return plain


INFO: Final = client_info("ann", "c1", b'{"name":"Ann"}', b"[1]")
INFO_READ: Final = {"user": "ann", "client": "c1", "conn_info": '{"name":"Ann"}', "chan_info": "[1]"}
PUB: Final = CODEC.publication(b'{"a":1}', 300, INFO)
PUB_READ: Final = {"data": '{"a":1}', "info": INFO_READ, "offset": 300}
SUB: Final = SubscribeResult(
    recoverable=True, epoch="e", publications=[Raw(PUB), Raw(b"")], recovered=True, offset=2**40, positioned=True,
    was_recovering=True, expires=True, ttl=60, data=Raw(b"null"),
)  # fmt: skip
SUB_READ: Final = {
    "recoverable": True, "epoch": "e", "publications": [PUB_READ, {}], "recovered": True, "offset": 2**40,
    "positioned": True, "was_recovering": True, "expires": True, "ttl": 60, "data": "null",
}  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "read"),
    [
        (CODEC.published(7), {"id": 7, "publish": {}}),
        (CODEC.empty(2**32 - 1, "ping"), {"id": 2**32 - 1, "ping": {}}),
        (CODEC.empty(1, "unsubscribe"), {"id": 1, "unsubscribe": {}}),
        (
            CODEC.error(3, CommandError(ErrorCode.INTERNAL, "späť")),
            {"id": 3, "error": {"code": 100, "message": CommandError(ErrorCode.INTERNAL, "späť").message,
                                "temporary": True}},
        ),
        (
            CODEC.error(3, too_many(0.01)),
            {"id": 3, "error": {"code": 111, "message": "too many requests: wait 0.1 s", "temporary": True}},
        ),
        (CODEC.subscribed(4, SUB), {"id": 4, "subscribe": SUB_READ}),
        (
            CODEC.connected(1, ConnectResult("c", "v", expires=True, ttl=5, data=Raw(b"{}"), subs={"a": SUB}, ping=25,
                                             pong=True, session="s", node="n")),
            {"id": 1, "connect": {"client": "c", "version": "v", "expires": True, "ttl": 5, "data": "{}",
                                  "subs": [{"key": "a", "value": SUB_READ}], "ping": 25, "pong": True, "session": "s",
                                  "node": "n"}},
        ),
        (
            CODEC.history(5, HistoryResult([Raw(PUB)], "e", 9)),
            {"id": 5, "history": {"publications": [PUB_READ], "epoch": "e", "offset": 9}},
        ),
        (CODEC.presence(6, {"c1": INFO}), {"id": 6, "presence": {"presence": [{"key": "c1", "value": INFO_READ}]}}),
        (CODEC.presence_stats(6, 3, 2), {"id": 6, "presence_stats": {"num_clients": 3, "num_users": 2}}),
        (CODEC.rpc(6, b"[]"), {"id": 6, "rpc": {"data": "[]"}}),
        (CODEC.expiry(6, "refresh", Expiry(expires=True, ttl=9)), {"id": 6, "refresh": {"expires": True, "ttl": 9}}),
        (CODEC.expiry(6, "sub_refresh", Expiry(expires=True, ttl=9)),
         {"id": 6, "sub_refresh": {"expires": True, "ttl": 9}}),
        (CODEC.push_publication(b'"\\u00e4"', PUB), {"push": {"channel": "ä", "pub": PUB_READ}}),
        (CODEC.push_join(b'"a"', INFO), {"push": {"channel": "a", "join": {"info": INFO_READ}}}),
        (CODEC.push_leave(b'"a"', INFO), {"push": {"channel": "a", "leave": {"info": INFO_READ}}}),
        (CODEC.push_unsubscribe("a", 2500, "why"),
         {"push": {"channel": "a", "unsubscribe": {"code": 2500, "reason": "why"}}}),
        (CODEC.push_message(b"1"), {"push": {"message": {"data": "1"}}}),
        (CODEC.push_subscribe("a", SUB), {"push": {"channel": "a", "subscribe": {
            "recoverable": True, "epoch": "e", "offset": 2**40, "positioned": True, "data": "null"}}}),
        (CODEC.push_refresh(Expiry(expires=True, ttl=9)), {"push": {"refresh": {"expires": True, "ttl": 9}}}),
        (CODEC.push_disconnect(3001, "shutdown"),
         {"push": {"disconnect": {"code": 3001, "reason": "shutdown", "reconnect": True}}}),
        (CODEC.push_disconnect(3501, "bad"), {"push": {"disconnect": {"code": 3501, "reason": "bad"}}}),
        (CODEC.ping, {}),
    ],
)  # fmt: skip
def test_the_reference_reads_what_is_written(payload: bytes, read: dict[str, Any]) -> None:
    assert reply(payload) == read


def test_some_bytes_are_known() -> None:
    assert CODEC.ping == b"\x00"
    assert CODEC.published(7) == b"\x04\x08\x07\x42\x00"
    assert CODEC.push_message(b"1") == b"\x07\x22\x05\x42\x03\x0a\x011"
    assert set(REPLIES) - {"error", "push"} == set(BODIES) - {"send"}


TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
NUMBER: Final = st.integers(0, 2**63 - 1)
JSON: Final = st.sampled_from([b"1", b'{"a":[1,2]}', '"ä"'.encode()])
SUBSCRIBE: Final[st.SearchStrategy[dict[str, Any]]] = st.fixed_dictionaries({}, optional={
    "channel": TEXT, "token": TEXT, "recover": st.booleans(), "epoch": TEXT, "offset": NUMBER, "data": JSON,
    "positioned": st.booleans(), "recoverable": st.booleans(), "join_leave": st.booleans(), "delta": TEXT,
    "flag": st.integers(-(2**63), 2**63 - 1),
})  # fmt: skip
ENTRY: Final[st.SearchStrategy[dict[str, Any]]] = st.fixed_dictionaries({"key": TEXT, "value": SUBSCRIBE})


def _key(entry: dict[str, Any]) -> str:
    return str(entry["key"])


FIELDS: Final[dict[str, dict[str, st.SearchStrategy[Any]]]] = {
    "connect": {"token": TEXT, "data": JSON, "name": TEXT, "version": TEXT,
                "subs": st.lists(ENTRY, max_size=3, unique_by=_key)},
    "subscribe": {}, "unsubscribe": {"channel": TEXT}, "publish": {"channel": TEXT, "data": JSON},
    "presence": {"channel": TEXT}, "presence_stats": {"channel": TEXT},
    "history": {"channel": TEXT, "limit": st.integers(-(2**31), 2**31 - 1), "reverse": st.booleans(),
                "since": st.fixed_dictionaries({"offset": NUMBER, "epoch": TEXT})},
    "ping": {}, "send": {"data": JSON}, "rpc": {"data": JSON, "method": TEXT}, "refresh": {"token": TEXT},
    "sub_refresh": {"channel": TEXT, "token": TEXT},
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@given(data=st.data())
def test_every_command_is_read_as_the_reference_wrote_it(name: str, data: st.DataObject) -> None:
    strategy = SUBSCRIBE if name == "subscribe" else st.fixed_dictionaries({}, optional=FIELDS[name])
    body = data.draw(strategy)
    (read,) = CODEC.decode(command(id=8, **{name: body}))
    assert (read.id, name_of(read)) == (8, name)
    got = structs.asdict(getattr(read, name))
    for field, value in body.items():
        if field == "delta":
            continue
        if field == "subs":
            assert {entry["key"]: entry["value"] for entry in value}.keys() == got["subs"].keys()
            for entry in value:
                _same(structs.asdict(got["subs"][entry["key"]]), entry["value"])
        else:
            _same(got, {field: value})


def _same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    for field, value in wanted.items():
        if field == "data":
            assert bytes(got[field]) == value
        elif field == "since":
            assert structs.asdict(got[field]) == value
        elif field != "delta":
            assert got[field] == value


def test_several_commands_come_in_one_message_and_an_empty_one_is_a_pong() -> None:
    assert [name_of(c) for c in CODEC.decode(b"\0" + command(id=1, ping={}) + b"\0")] == ["", "ping", ""]


def test_unknown_fields_of_every_wire_type_are_skipped() -> None:
    unknown = b"\x98\x06\x01" + b"\x9a\x06\x02ab" + b"\x99\x06" + bytes(8) + b"\x9d\x06" + bytes(4)
    (read,) = CODEC.decode(delimited(unknown + b"\x08\x07" + b"\x5a" + varint(len(unknown)) + unknown))
    assert (read.id, name_of(read)) == (7, "ping")


@pytest.mark.parametrize("data", [b"\xff\x00", b"", b"nul", b'"\xff"', b"[" * 100_000, b"{} {}", b'"a\nb"'])
def test_data_that_is_no_json_is_missing(data: bytes) -> None:
    (read,) = CODEC.decode(command(id=1, publish={"channel": "a", "data": data}))
    assert read.publish is not None
    assert bytes(read.publish.data) == b""


def test_data_loses_its_newlines() -> None:
    (read,) = CODEC.decode(command(id=1, publish={"channel": "a", "data": b'{\r\n"a": "\\n"\n}\n'}))
    assert read.publish is not None
    assert bytes(read.publish.data) == b'{"a": "\\n"}'


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"", "0 commands in a message; send 1 to 3"),
        (b"\0\0\0\0", "more than 3 commands"),
        (b"\x05\x08", "a command is 5 bytes long, but only 1 bytes are left"),
        (b"\x80", "a varint is cut off at byte 1"),
        (b"\xff" * 11, "more than 64 bits"),
        (b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x02\x08\x80", "a varint is cut off"),
        (b"\x02\x0b\x00", "wire type 3"),
        (b"\x02\x00\x00", "0 is no field number"),
        (b"\x02\x0a\x00", "id has wire type 2, but must have 0"),
        (b"\x02\x38\x00", "publish has wire type 0, but must have 2"),
        (b"\x03\x3a\x05\x0a", "field 7 is 5 bytes long, but only 1 bytes are left"),
        (b"\x05\x3a\x03\x0a\x01\xff", "a text is not UTF-8 at its byte 0"),
        (command(id=1, subscribe={"offset": 2**63}), "offset is 9223372036854775808"),
    ],
)
def test_what_is_not_the_protocol_is_refused_and_named(payload: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        CODEC.decode(payload)


@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_be_refused(payload: bytes) -> None:
    with suppress(ProtocolError):
        CODEC.decode(payload)


@given(st.data())
def test_a_command_with_any_byte_changed_does_no_more_than_be_refused(data: st.DataObject) -> None:
    whole = bytearray(command(id=3, connect={"token": "t", "subs": [{"key": "a", "value": {"offset": 900}}]}))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ProtocolError):
        CODEC.decode(bytes(whole))


@given(st.integers(0, 2**64 - 1))
def test_varints_are_those_of_the_reference(value: int) -> None:
    message = reference("StreamPosition")(offset=value).SerializeToString()
    assert message == (b"\x08" + varint(value) if value else b"")


def test_both_codecs_write_all_that_the_seam_has() -> None:
    def of(codec: type) -> set[str]:
        return {name for name in vars(codec) if not name.startswith("_")}

    assert of(JsonCodec) <= of(ProtobufCodec)
