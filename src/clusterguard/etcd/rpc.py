"""The calls of etcd that are used here, as gRPC and as its JSON gateway write them: no I/O.

Each call has one table of fields, so both ways give the same answer: every field of the table, zero where the member
left it out. Field numbers: etcd's api/etcdserverpb/rpc.proto; fields that are in no table are passed over.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from clusterguard.etcd.protobuf import fields_of, length_delimited, varint_field

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ALARM",
    "AUTHENTICATE",
    "AUTH_STATUS",
    "HASH_KV",
    "MEMBER_ADD",
    "MEMBER_LIST",
    "MEMBER_REMOVE",
    "RANGE",
    "SNAPSHOT",
    "STATUS",
    "TXN",
    "BrokenAnswerError",
    "Call",
    "RpcError",
    "decode",
    "encode",
    "from_json",
    "to_json",
]

Shape: TypeAlias = "Mapping[str, Field]"
Kind: TypeAlias = Literal["uint", "int", "bool", "text", "bytes"]


class RpcError(Exception):
    """The member answered with a gRPC status other than OK; the gateway repeats it in its JSON."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} (gRPC status {code})")
        self.code = code
        self.message = message


class BrokenAnswerError(Exception):
    """What came is no answer to that call."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its number in protobuf, and what it holds; a tuple names the values of an enumeration."""

    number: int
    kind: Kind | tuple[str, ...] | Shape
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call.

    Attributes:
        method: gRPC's name of it.
        path: The gateway's, below ``/v3/``.
        request: Its fields.
        response: Likewise.
    """

    method: str
    path: str
    request: Shape
    response: Shape


_HEADER: Final = Field(1, {"cluster_id": Field(1, "uint"), "member_id": Field(2, "uint"), "revision": Field(3, "int")})
_ALARMS: Final = ("NONE", "NOSPACE", "CORRUPT")

SNAPSHOT: Final = "/etcdserverpb.Maintenance/Snapshot"  # a stream: SnapshotFrames reads it
STATUS: Final = Call(
    method="/etcdserverpb.Maintenance/Status",
    path="maintenance/status",
    request={},
    response={
        "header": _HEADER,
        "version": Field(2, "text"),
        "dbSize": Field(3, "int"),
        "leader": Field(4, "uint"),
        "raftIndex": Field(5, "uint"),
        "raftAppliedIndex": Field(7, "uint"),
        "errors": Field(8, "text", repeated=True),
        "dbSizeInUse": Field(9, "int"),
        "isLearner": Field(10, "bool"),
        "storageVersion": Field(11, "text"),
    },
)
HASH_KV: Final = Call(
    method="/etcdserverpb.Maintenance/HashKV",
    path="maintenance/hashkv",
    request={"revision": Field(1, "int")},
    response={
        "header": _HEADER,
        "hash": Field(2, "uint"),
        "compact_revision": Field(3, "int"),
        "hash_revision": Field(4, "int"),
    },
)
ALARM: Final = Call(
    method="/etcdserverpb.Maintenance/Alarm",
    path="maintenance/alarm",
    request={
        "action": Field(1, ("GET", "ACTIVATE", "DEACTIVATE")),
        "memberID": Field(2, "uint"),
        "alarm": Field(3, _ALARMS),
    },
    response={
        "header": _HEADER,
        "alarms": Field(2, {"memberID": Field(1, "uint"), "alarm": Field(2, _ALARMS)}, repeated=True),
    },
)
RANGE: Final = Call(
    method="/etcdserverpb.KV/Range",
    path="kv/range",
    request={
        "key": Field(1, "bytes"),
        "range_end": Field(2, "bytes"),
        "revision": Field(4, "int"),
        "serializable": Field(7, "bool"),
        "count_only": Field(9, "bool"),
    },
    response={
        "header": _HEADER,
        "kvs": Field(2, {"mod_revision": Field(3, "int"), "value": Field(5, "bytes")}, repeated=True),
        "count": Field(4, "int"),
    },
)
TXN: Final = Call(
    method="/etcdserverpb.KV/Txn",
    path="kv/txn",
    request={
        "compare": Field(
            1,
            {
                "result": Field(1, ("EQUAL", "GREATER", "LESS", "NOT_EQUAL")),
                "target": Field(2, ("VERSION", "CREATE", "MOD", "VALUE", "LEASE")),
                "key": Field(3, "bytes"),
                "mod_revision": Field(6, "int"),
            },
            repeated=True,
        ),
        "success": Field(
            2,
            {
                "request_put": Field(2, {"key": Field(1, "bytes"), "value": Field(2, "bytes")}),
                "request_delete_range": Field(3, {"key": Field(1, "bytes")}),
            },
            repeated=True,
        ),
    },
    response={"header": _HEADER, "succeeded": Field(2, "bool")},
)
_MEMBERS: Final = Field(
    2,
    {
        "ID": Field(1, "uint"),
        "name": Field(2, "text"),
        "peerURLs": Field(3, "text", repeated=True),
        "clientURLs": Field(4, "text", repeated=True),
        "isLearner": Field(5, "bool"),
    },
    repeated=True,
)
MEMBER_LIST: Final = Call(
    method="/etcdserverpb.Cluster/MemberList",
    path="cluster/member/list",
    request={"linearizable": Field(1, "bool")},  # since etcd 3.5
    response={"header": _HEADER, "members": _MEMBERS},
)
MEMBER_REMOVE: Final = Call(
    method="/etcdserverpb.Cluster/MemberRemove",
    path="cluster/member/remove",
    request={"ID": Field(1, "uint")},
    response={"header": _HEADER, "members": _MEMBERS},
)
MEMBER_ADD: Final = Call(
    method="/etcdserverpb.Cluster/MemberAdd",
    path="cluster/member/add",
    request={"peerURLs": Field(1, "text", repeated=True)},
    response={"header": _HEADER},
)
AUTH_STATUS: Final = Call(  # since etcd 3.5
    method="/etcdserverpb.Auth/AuthStatus",
    path="auth/status",
    request={},
    response={"header": _HEADER, "enabled": Field(2, "bool")},
)
AUTHENTICATE: Final = Call(
    method="/etcdserverpb.Auth/Authenticate",
    path="auth/authenticate",
    request={"name": Field(1, "text"), "password": Field(2, "text")},
    response={"header": _HEADER, "token": Field(2, "text")},
)


# ---- protobuf ----------------------------------------------------------------------------------------------


def encode(shape: Shape, values: Mapping[str, object]) -> bytes:
    """Return a request as protobuf; a zero is left out, which is how protobuf writes it."""
    return b"".join(_to_wire(shape[name], value) for name, value in values.items() if value)


def decode(shape: Shape, message: bytes) -> dict[str, Any]:
    """Return every field of an answer.

    Raises:
        BrokenAnswerError: It is no such protobuf.
    """
    values: dict[str, list[object]] = {name: [] for name in shape}
    by_number = {field.number: (name, field.kind) for name, field in shape.items()}
    try:
        for number, content in fields_of(message):
            if number in by_number:
                name, kind = by_number[number]
                values[name].append(_from_wire(kind, content))
    except (ValueError, TypeError, AttributeError) as error:  # the content has another type than the field
        raise BrokenAnswerError(str(error)) from error
    return {name: _told(field, values[name]) for name, field in shape.items()}


def _told(field: Field, values: list[object]) -> object:
    if field.repeated:
        return tuple(values)
    return values[-1] if values else _zero(field.kind)


def _to_wire(field: Field, value: Any) -> bytes:  # noqa: ANN401 - the table tells the type
    if field.repeated:
        return b"".join(_to_wire(replace(field, repeated=False), each) for each in value)
    match field.kind:
        case "text":
            return length_delimited(field.number, value.encode())
        case "bytes":
            return length_delimited(field.number, value)
        case tuple() as names:
            return varint_field(field.number, names.index(value))
        case "uint" | "int" | "bool":
            return varint_field(field.number, int(value))
        case shape:
            return length_delimited(field.number, encode(shape, value))


def _from_wire(kind: Kind | tuple[str, ...] | Shape, content: Any) -> object:  # noqa: ANN401 - an int, or bytes
    match kind:
        case "int":
            return content - (1 << 64) if content >> 63 else content
        case "uint":
            return content + 0
        case "bool":
            return content > 0
        case "text" | "bytes":
            return content.decode() if kind == "text" else content + b""
        case tuple():
            return kind[content] if content < len(kind) else f"UNKNOWN ({content})"
        case _:
            return decode(kind, content)


# ---- JSON --------------------------------------------------------------------------------------------------


def to_json(values: Mapping[str, object]) -> dict[str, object]:
    """Return a request as the gateway takes it: bytes in base64, whole numbers as text."""
    return {name: _as_json(value) for name, value in values.items()}


def from_json(shape: Shape, answer: object) -> dict[str, Any]:
    """Return every field of the gateway's answer.

    Raises:
        BrokenAnswerError: It is no such answer.
    """
    if not isinstance(answer, dict) or "header" not in answer:
        raise BrokenAnswerError("it is not etcd's")
    try:
        return _from_json(shape, answer)
    except (ValueError, TypeError, AttributeError) as error:
        raise BrokenAnswerError(str(error)) from error


def _as_json(value: object) -> object:
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case tuple():
            return [_as_json(each) for each in value]
        case dict():
            return to_json(value)
        case bool() | str():
            return value
        case _:
            return str(value)


def _from_json(shape: Shape, answer: Mapping[str, Any]) -> dict[str, Any]:
    found = _zeros(shape)
    for name in found.keys() & answer.keys():
        field, value = shape[name], answer[name]
        found[name] = tuple(_read(field.kind, each) for each in value) if field.repeated else _read(field.kind, value)
    return found


def _read(kind: Kind | tuple[str, ...] | Shape, value: Any) -> object:  # noqa: ANN401 - JSON
    match kind:
        case "int" | "uint":
            return int(value)
        case "bool":
            return bool(value)
        case "bytes":
            return base64.b64decode(value)
        case "text" | tuple():
            return str(value)
        case _:
            return _from_json(kind, value)


def _zeros(shape: Shape) -> dict[str, Any]:
    return {name: () if field.repeated else _zero(field.kind) for name, field in shape.items()}


def _zero(kind: Kind | tuple[str, ...] | Shape) -> object:
    match kind:
        case "int" | "uint":
            return 0
        case "bool":
            return False
        case "text" | "bytes":
            return "" if kind == "text" else b""
        case tuple():
            return kind[0]
        case _:
            return _zeros(kind)
