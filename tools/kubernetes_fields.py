"""Rewrite ``src/clusterguard/snapshots/kubernetes.fields``: built-in kinds as protobuf in etcd, and as served JSON.

For maintainers, with Go on the PATH and Go's module proxy in reach::

    python tools/kubernetes_fields.py            # rewrite the file
    python tools/kubernetes_fields.py --check    # only compare; exit code 1 when something differs

The API server stores its own kinds as protobuf and answers in JSON. What connects the two is spread over two kinds of
files of the modules k8s.io/api and k8s.io/apimachinery: ``generated.proto`` has the number, type and label of each
field; the tags of the Go structs have its JSON name and say whether a field without a value is left out, and whether it
is a pointer or part of its parent. Both are read here, of one patch release of each minor version, and joined by the
field's number into one table of facts. A field whose number means something else in another minor version ends the
run: one table for all of them would be wrong then. Definitions of custom resources and API services are not in it: the
API server stores both as JSON.

The file has a line ``kind APIVERSION KIND MESSAGE`` for each kind, and a line ``MESSAGE FIELD FIELD...`` for each
message that they are made of. A field is ``NUMBER:NAME:FLAGS:TYPE``, with ``@MINOR`` behind it where it is so only from
Kubernetes 1.MINOR on. Flags: ``?`` left out when empty (omitempty), ``0`` also as a struct (omitzero), ``*`` pointer,
``[`` list, ``{`` map from strings, ``~`` part of its parent. Types: ``s`` string, ``b`` bool, ``i`` whole number,
``y`` bytes, ``T`` Time, ``U`` MicroTime, ``Q`` Quantity, ``O`` IntOrString, ``J`` JSON text, ``W`` list of strings in a
message of its own; anything else is a message.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clusterguard import process

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = Path(__file__).parent.parent / "src/clusterguard/snapshots/kubernetes.fields"
RELEASES = (
    "0.28.15", "0.29.0", "0.30.14", "0.31.14", "0.32.10", "0.33.13", "0.34.1", "0.35.4", "0.36.3", "0.37.2",
)  # fmt: skip
HEADER = f"""\
# Facts about Kubernetes 1.{RELEASES[0].split(".")[1]} to 1.{RELEASES[-1].split(".")[1]}, \
written by tools/kubernetes_fields.py, which says what the lines mean. Do not edit.
"""
SCALARS = {"string": "s", "bool": "b", "int32": "i", "int64": "i", "bytes": "y"}
META, CORE = "meta/v1", "core/v1"
SPECIAL = {
    f"{META}.Time": "T",
    f"{META}.MicroTime": "U",
    "resource.Quantity": "Q",
    "intstr.IntOrString": "O",
    f"{META}.Duration": "D",  # no kind has one
    f"{META}.FieldsV1": "J",
    "runtime.RawExtension": "J",
}
PACKAGES = {
    "k8s.io.apimachinery.pkg.apis.meta.v1": META,
    "k8s.io.apimachinery.pkg.api.resource": "resource",
    "k8s.io.apimachinery.pkg.util.intstr": "intstr",
    "k8s.io.apimachinery.pkg.runtime": "runtime",
}
_MESSAGE = re.compile(r"^message (\w+) \{(?:\}|\n(.*?)^\})", re.MULTILINE | re.DOTALL)
_PROTO_FIELD = re.compile(
    r"^  (?:(optional|repeated|required) )?(map<string, [\w.]+>|[\w.]+) \w+ = (\d+);", re.MULTILINE
)
_STRUCT = re.compile(r"^type (\w+) struct ?\{(?:\}|\n(.*?)^\})", re.MULTILINE | re.DOTALL)
_GO_FIELD = re.compile(r"^\t(?:\w+\s+)?([*\[\]\w.]\S*)\s+`(.*)`", re.MULTILINE)
_JSON_TAG, _PROTOBUF_TAG = re.compile(r'json:"([^"]*)"'), re.compile(r'protobuf:"[a-z0-9]+,(\d+)')


@dataclass(frozen=True, slots=True)
class Field:
    """One field of one message, in one minor version."""

    name: str
    flags: str
    type: str

    @property
    def wire(self) -> tuple[str, str]:
        """What may never change under one number."""
        return self.type if len(self.type) == 1 else "message", "".join(flag for flag in self.flags if flag in "[{")

    @property
    def always(self) -> bool:
        """Whether JSON has it even where nothing was stored."""
        is_struct = self.type not in {"s", "b", "i", "y", "W"} and not set("[{*") & set(self.flags)
        return "0" not in self.flags and "~" not in self.flags and ("?" not in self.flags or is_struct)


@dataclass(frozen=True, slots=True)
class Release:
    """What one release says."""

    minor: int
    kinds: dict[tuple[str, str], str]
    messages: dict[str, dict[int, Field]]


def main() -> int:
    """Rewrite or check the file; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    text = HEADER + "".join(f"{line}\n" for line in _lines([_read(version) for version in RELEASES]))
    same = TABLE.is_file() and text == TABLE.read_text(encoding="utf-8")
    if not check:
        TABLE.write_text(text, encoding="utf-8")
    print("unchanged" if same else "different" if check else "rewritten")
    return int(check and not same)


def _lines(releases: list[Release]) -> Iterator[str]:
    kinds = {kind: message for release in releases for kind, message in release.kinds.items()}
    for (version, kind), message in sorted(kinds.items()):
        yield f"kind {version} {kind} {message}"
    needed = list(dict.fromkeys(kinds.values()))
    for message in needed:  # grows on the way
        fields = _joined(message, releases)
        needed += sorted({one.type for _, one, _ in fields if len(one.type) > 1} - set(needed))
    for message in sorted(needed):
        yield " ".join([message, *(_field(*field) for field in _joined(message, releases))])


def _field(number: int, field: Field, since: int | None) -> str:
    return f"{number}:{field.name}:{field.flags}:{field.type}" + (f"@{since}" if since else "")


def _joined(message: str, releases: list[Release]) -> list[tuple[int, Field, int | None]]:
    """Return a message's fields over all releases, each with the minor version it is so from, if not from the first."""
    having = [release for release in releases if message in release.messages]
    if not having:
        raise SystemExit(f"{message}: not found in Go and the .proto files")
    found: list[tuple[int, Field, int | None]] = []
    for number in sorted({number for release in having for number in release.messages[message]}):
        seen: Field | None = None
        for index, release in enumerate(having):
            field = release.messages[message].get(number)
            if field is None:
                if seen is not None and seen.always:
                    seen = Field(seen.name, "?*", seen.type)  # gone: no longer always written
                    found.append((number, seen, release.minor))
                continue
            if seen is not None and (seen.wire != field.wire or seen.name != field.name):
                raise SystemExit(f"{message} {number}: {seen} became {field} in 1.{release.minor}")
            if field != seen:
                late = index > 0 and (seen is not None or field.always)
                found.append((number, field, release.minor if late else None))
            seen = field
    return found


def _read(version: str) -> Release:
    api, machinery = _module("k8s.io/api", version), _module("k8s.io/apimachinery", version)
    folders = {META: machinery / "pkg/apis/meta/v1"}
    groups: dict[str, str] = {}
    for proto in sorted(api.glob("*/*/generated.proto")):
        package = f"{proto.parent.parent.name}/{proto.parent.name}"
        folders[package] = proto.parent
        (group,) = re.findall(r'^const GroupName = "(.*)"', (proto.parent / "register.go").read_text(), re.MULTILINE)
        groups[package] = f"{group}/{proto.parent.name}".lstrip("/")
    messages: dict[str, dict[int, Field]] = {}
    kinds: dict[tuple[str, str], str] = {}
    wrappers = {f"{package}.{name}" for package, folder in folders.items() for name in _wrappers(folder)}
    for package, folder in folders.items():
        structs = dict(_structs(folder))
        for name, body in _MESSAGE.findall((folder / "generated.proto").read_text()):
            message = f"{package}.{name}"
            if message in SPECIAL or message in wrappers or name not in structs:
                continue
            fields = _fields(message, body, structs[name], wrappers)
            if fields is None:
                continue
            messages[message] = fields
            first = fields.get(1)
            if package in groups and first and first.type == f"{META}.ObjectMeta" and "TypeMeta" in structs[name]:
                kinds[groups[package], name] = message
    return Release(int(version.split(".")[1]), kinds, messages)


def _module(module: str, version: str) -> Path:
    got = process.run(["go", "mod", "download", "-json", f"{module}@v{version}"], timeout_seconds=600)
    return Path(json.loads(got.stdout)["Dir"])


def _structs(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(folder.glob("*.go")):
        if not file.name.startswith(("generated", "zz_")) and not file.name.endswith("_test.go"):
            text = file.read_text()
            yield from _STRUCT.findall(text)
            for name, version, original in re.findall(r"^type (\w+) (v\w+)\.(\w+)$", text, re.MULTILINE):
                structs = dict(_structs(folder.parent / version))  # of the same group
                if original in structs:
                    yield name, structs[original]


def _wrappers(folder: Path) -> list[str]:
    """Return the lists of strings that are messages of their own, since they are values of a map."""
    return [name for file in folder.glob("*.go") for name in re.findall(r"^type (\w+) \[\]string$", file.read_text(),
                                                                       re.MULTILINE)]  # fmt: skip


def _fields(message: str, proto: str, struct: str, wrappers: set[str]) -> dict[int, Field] | None:
    tags: dict[int, tuple[str, str]] = {}
    for go_type, tag in _GO_FIELD.findall(struct):
        numbered, name = _PROTOBUF_TAG.search(tag), _JSON_TAG.search(tag)
        if numbered and name:
            tags[int(numbered[1])] = go_type, name[1]
    fields = {}
    for label, proto_type, number in _PROTO_FIELD.findall(proto):
        if int(number) not in tags:
            return None  # made by hand in Go; no kind needs it, or the run ends
        go_type, tag = tags[int(number)]
        name, *options = tag.split(",")
        is_map = proto_type.startswith("map<")
        kind = _type(message, proto_type.removeprefix("map<string, ").rstrip(">") if is_map else proto_type)
        flags = "?" * ("omitempty" in options) + "0" * ("omitzero" in options) + "*" * go_type.startswith("*")
        flags += "[" * (label == "repeated" and not is_map) + "{" * is_map
        flags = flags if name else "~"
        fields[int(number)] = Field(name, flags, "W" if kind in wrappers else SPECIAL.get(kind, kind))
    if tags.keys() != fields.keys():
        raise SystemExit(f"{message}: the .proto file and Go do not have the same fields")
    return fields


def _type(message: str, proto_type: str) -> str:
    if proto_type in SCALARS:
        return SCALARS[proto_type]
    package, _, name = proto_type.lstrip(".").rpartition(".")
    if not package:
        return f"{message.rpartition('.')[0]}.{name}"
    if package in PACKAGES:
        return f"{PACKAGES[package]}.{name}"
    return f"{'/'.join(package.removeprefix('k8s.io.api.').split('.'))}.{name}"


if __name__ == "__main__":
    sys.exit(main())
