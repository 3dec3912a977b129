"""YAML with the place of every value, and no surprises: one pass guards, the second builds plain data.

PyYAML's nodes carry their positions. What YAML can do to its reader (anchors that expand to billions of
nodes, anchors that contain themselves, tags that run code, keys given twice) is refused with the place where
it happens. The meaning of plain scalars is the one that Kubernetes' own reader gives them: ``no`` is a
boolean, ``0644`` an octal number, but dates and ``12:30:00`` are text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml
from yaml.constructor import SafeConstructor

from clusterguard.errors import InvalidDocumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = [
    "DataPath",
    "Place",
    "Problem",
    "SourceText",
    "YamlDocument",
    "describe",
    "dotted",
    "parse_documents",
    "raise_problems",
    "read_source",
]

DataPath: TypeAlias = tuple[str | int, ...]
"""Where a value is inside a document: mapping keys and list indices, from the top."""

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_EXPANDED: Final = 50_000  # values that aliases may add to those that are written
MAX_DEPTH: Final = 64

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_CORE_TAGS = frozenset(_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map"))
_NON_SPECIFIC_TAG = "!"
# As libyaml counts lines: also NEL and the two Unicode separators end one.
_LINE_END = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_WIDEST_EXCERPT = 160


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file; line and column count from 1, as editors do."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class SourceText:
    """A file's text, kept to show the lines that a problem or a step comes from."""

    path: str
    text: str = field(repr=False)
    lines: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", tuple(_LINE_END.split(self.text)))

    def location(self, place: Place) -> str:
        """Return ``path:line:column``, which terminals and editors turn into a link."""
        return f"{self.path}:{place.line}:{place.column}"

    def excerpt(self, place: Place) -> str:
        """Return the line with its number, and a caret under the column."""
        line = self.lines[place.line - 1] if place.line <= len(self.lines) else ""
        start = max(0, place.column - _WIDEST_EXCERPT // 2)
        shown = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", line[start : start + _WIDEST_EXCERPT])
        caret = " " * (place.column - 1 - start) + "^"
        return f"{place.line:>5} | {shown.rstrip()}\n      | {caret}"

    def between(self, first: int, last: int) -> str:
        """Return whole lines, both ends included, each with its number."""
        return "\n".join(f"{number:>5} | {self.lines[number - 1]}" for number in range(first, last + 1))


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file, and where."""

    source: SourceText
    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}\n{self.source.excerpt(self.place)}"

    @property
    def location(self) -> str:
        """Return ``path:line:column``."""
        return self.source.location(self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlDocument:
    """One YAML document as plain data, with the places of all of it.

    Attributes:
        source: The file it is from.
        data: Mappings, lists, text, numbers, booleans and None. Shared anchors become separate copies.
        values: Where each value begins; values reached through an alias begin at their anchor's content.
        keys: Where the key of each value of a mapping is.
        raw: Scalars as they were written, so that ``no`` and ``1.30`` can be named in a message.
        last_lines: The last line of each value that is more than a scalar.
    """

    source: SourceText
    data: object
    values: Mapping[DataPath, Place]
    keys: Mapping[DataPath, Place]
    raw: Mapping[DataPath, str]
    last_lines: Mapping[DataPath, int]

    def place(self, path: DataPath, *, key: bool = False) -> Place:
        """Return where a value is (or its key), or else the nearest thing around it that the file has."""
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.values:
            path = path[:-1]
        return self.values[path]

    def problem(self, path: DataPath, message: str, *, key: bool = False) -> Problem:
        """Return a problem at a value, or at its key."""
        return Problem(self.source, self.place(path, key=key), message)

    def source_of(self, path: DataPath) -> str:
        """Return the lines that a value is written on, numbered."""
        first = self.place(path).line
        return self.source.between(first, self.last_lines.get(path, first))


def dotted(path: DataPath) -> str:
    """Write a data path as people do: ``spec.fault[0].delete``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def raise_problems(problems: Iterable[Problem], *, also: Iterable[str] = (), hint: str | None = None) -> None:
    """Raise all problems as one error, in the order of the file; do nothing when there are none.

    Args:
        problems: Those with a place; one that was found twice is in the message once.
        also: Texts of other errors, which follow them.
        hint: What to do next.

    Raises:
        InvalidDocumentError: There are problems.
    """
    unique = sorted(set(problems), key=lambda problem: (problem.source.path, problem.place, problem.message))
    texts = [*(str(problem) for problem in unique), *dict.fromkeys(also)]
    if texts:
        raise InvalidDocumentError("\n".join(texts), fields={"places": [each.location for each in unique]}, hint=hint)


def read_source(path: Path, *, max_bytes: int = MAX_BYTES) -> SourceText:
    """Read a file of UTF-8 text.

    Raises:
        InvalidDocumentError: It is not there, not a regular file, larger than ``max_bytes``, or not UTF-8 text.
    """
    try:
        if not path.is_file():  # a pipe or a device would block or never end
            seen = "not a regular file" if path.exists() else "no such file"
            raise InvalidDocumentError(f"{path}: {seen}", fields={"path": str(path), "reason": seen})
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidDocumentError(f"{path}: cannot be read: {reason}") from error
    if len(data) > max_bytes:
        raise InvalidDocumentError(
            f"{path}: larger than {max_bytes / 1024 / 1024:g} MiB", hint="split it into several files"
        )
    return _decode(str(path), data)


def parse_documents(source: SourceText, *, literal_keys: Collection[str] = ()) -> tuple[YamlDocument, ...]:
    """Parse every document of a source that is not empty.

    Args:
        source: The file's text.
        literal_keys: Keys that are text although YAML reads them as something else, such as ``on``.

    Raises:
        InvalidDocumentError: It is not YAML, or uses what is refused here; every problem is in the message.
    """
    written = _Guard(source).count()
    try:
        nodes = list(yaml.compose_all(source.text, Loader=_LOADER))
    except yaml.YAMLError as error:
        raise _not_yaml(source, error) from error
    builders = [_Builder(source, budget=written + MAX_EXPANDED, literal_keys=literal_keys) for _ in nodes]
    documents = tuple(builder.document(node) for builder, node in zip(builders, nodes, strict=True))
    raise_problems(problem for builder in builders for problem in builder.problems)
    return tuple(document for document in documents if document.data is not None)


def _decode(path: str, data: bytes) -> SourceText:
    try:
        source = SourceText(path, data.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        before = SourceText(path, data[: error.start].decode("utf-8"))
        place = Place(len(before.lines), len(before.lines[-1]) + 1)
        byte = data[error.start]
        raise InvalidDocumentError(
            f"{before.location(place)}: byte 0x{byte:02x} is not UTF-8", hint="save the file as UTF-8"
        ) from error
    if found := _NOT_YAML.search(source.text):
        character = ord(found.group())
        place = _place_of_index(source, found.start())
        raise_problems([Problem(source, place, f"character U+{character:04X} is not allowed in YAML")])
    return source


def _place_of_index(source: SourceText, index: int) -> Place:
    before = _LINE_END.split(source.text[:index])
    return Place(len(before), len(before[-1]) + 1)


def _place_of_mark(mark: Any) -> Place:  # noqa: ANN401 - the C parser's marks are of a type of their own
    return Place(mark.line + 1, mark.column + 1)


def _not_yaml(source: SourceText, error: yaml.YAMLError | ValueError | OverflowError) -> InvalidDocumentError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = _place_of_mark(mark) if mark is not None else Place(1, 1)
    words = [str(word) for word in (getattr(error, "context", None), getattr(error, "problem", None)) if word]
    message = f"not YAML: {', '.join(words) or error}"
    problem = Problem(source, place, message)
    return InvalidDocumentError(str(problem), fields={"places": [problem.location]})


class _Guard:
    """Reads a file's events, which costs nothing per alias and never recurses, before any node is built."""

    def __init__(self, source: SourceText) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.open: list[int | None] = []  # the anchors of the collections we are inside of
        self.anchors: dict[str, int] = {}  # name → number of its latest definition
        self.anchored = 0
        self.nodes = 0

    def count(self) -> int:
        """Return how many nodes are written; refuse cycles, foreign tags and deep nesting."""
        try:
            for event in yaml.parse(self.source.text, Loader=_LOADER):
                self._look_at(event)
        except yaml.YAMLError as error:
            raise _not_yaml(self.source, error) from error
        except (ValueError, OverflowError) as error:  # PyYAML on escapes beyond Unicode
            raise _not_yaml(self.source, error) from error
        raise_problems(self.problems)
        return self.nodes

    def _look_at(self, event: yaml.Event) -> None:
        self.nodes += isinstance(event, yaml.NodeEvent)
        match event:
            case yaml.DocumentStartEvent():
                self.anchors.clear()
            case yaml.AliasEvent():
                self._look_at_alias(event)
            case yaml.ScalarEvent():
                self._look_at_tag(event)
                self._anchor(event)
            case yaml.CollectionStartEvent():
                self._look_at_tag(event)
                self.open.append(self._anchor(event))
                if len(self.open) > MAX_DEPTH:
                    self._stop(event, f"nested deeper than {MAX_DEPTH} levels")
            case yaml.CollectionEndEvent():
                self.open.pop()

    def _anchor(self, event: yaml.NodeEvent) -> int | None:
        if event.anchor is None:
            return None
        self.anchored += 1
        self.anchors[event.anchor] = self.anchored
        return self.anchored

    def _look_at_alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor in self.anchors and self.anchors[event.anchor] in self.open:
            self._stop(event, f"alias `*{event.anchor}` is inside of what it stands for: a cycle without end")

    def _look_at_tag(self, event: Any) -> None:  # noqa: ANN401 - scalar and collection events share no typed base
        if event.tag not in (None, _NON_SPECIFIC_TAG) and event.tag not in _CORE_TAGS:
            tag = event.tag.replace(_TAG, "!!")
            place = _place_of_mark(event.start_mark)
            self.problems.append(Problem(self.source, place, f"tag `{tag}` is refused: plain YAML only"))

    def _stop(self, event: yaml.Event, message: str) -> None:
        raise_problems([*self.problems, Problem(self.source, _place_of_mark(event.start_mark), message)])


class _Builder:
    """Turns the nodes of one document into data and places."""

    def __init__(self, source: SourceText, *, budget: int, literal_keys: Collection[str]) -> None:
        self.source = source
        self.literal_keys = literal_keys
        self.problems: list[Problem] = []
        self.left = budget
        self.values: dict[DataPath, Place] = {}
        self.keys: dict[DataPath, Place] = {}
        self.raw: dict[DataPath, str] = {}
        self.last_lines: dict[DataPath, int] = {}
        self.scalars = SafeConstructor()

    def document(self, node: yaml.Node) -> YamlDocument:
        return YamlDocument(
            source=self.source,
            data=self._build(node, ()),
            values=self.values,
            keys=self.keys,
            raw=self.raw,
            last_lines=self.last_lines,
        )

    def _build(self, node: yaml.Node, path: DataPath) -> object:
        self._spend(node)
        if len(path) > MAX_DEPTH:  # aliases nest deeper than the file looks
            raise_problems([*self.problems, self._problem(node, f"nested deeper than {MAX_DEPTH} levels")])
        self.values[path] = _place_of_mark(node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self.last_lines[path] = self._last_line(node)
        if isinstance(node, yaml.SequenceNode):
            self._expect_tag(node, "seq")
            return [self._build(item, (*path, index)) for index, item in enumerate(node.value)]
        self._expect_tag(node, "map")
        data: dict[str, object] = {}
        for key, (key_node, value_node) in self._pairs(node, 0).items():
            self.keys[*path, key] = _place_of_mark(key_node.start_mark)
            data[key] = self._build(value_node, (*path, key))
        return data

    def _pairs(self, node: yaml.Node, depth: int) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return a mapping's entries; its own win over merged ones, and earlier merged ones over later."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merge_key: yaml.Node | None = None
        for key_node, value_node in node.value:
            self._spend(key_node)
            if key_node.tag == _TAG + "merge":
                if merge_key is not None:
                    self._duplicate("<<", key_node, merge_key)
                merge_key = key_node
                for pairs in self._merge_sources(value_node, depth + 1):
                    merged = pairs | merged
                continue
            key = self._key(key_node)
            if key in own:
                self._duplicate(key, key_node, own[key][0])
            elif key is not None:
                own[key] = (key_node, value_node)
        return merged | own

    def _merge_sources(self, node: yaml.Node, depth: int) -> Iterator[dict[str, tuple[yaml.Node, yaml.Node]]]:
        if depth > MAX_DEPTH:
            raise_problems([*self.problems, self._problem(node, f"merged deeper than {MAX_DEPTH} levels")])
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            self._spend(source)
            if isinstance(source, yaml.MappingNode):
                yield self._pairs(source, depth)
            else:
                self._report(source, "`<<` merges mappings only")

    def _key(self, node: yaml.Node) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            value = node.value if node.value in self.literal_keys else self._scalar_value(node)
            if isinstance(value, str):
                return value
            if isinstance(value, int) and not isinstance(value, bool):
                return str(value)  # as Kubernetes' own reader does
            self._report(node, f"key `{node.value}` is {describe(value)} in YAML; write it in quotes")
        else:
            self._report(node, "a key must be text")
        return None

    def _scalar(self, node: yaml.ScalarNode, path: DataPath) -> object:
        self.raw[path] = node.value
        return self._scalar_value(node)

    def _scalar_value(self, node: yaml.ScalarNode) -> object:
        if _NOT_TEXT.search(node.value):
            self._report(node, "NUL and halves of surrogate pairs are not text")
            return ""
        try:
            return self._resolve(node)
        except (ValueError, LookupError, OverflowError):  # what PyYAML raises is not always its own
            self._report(node, f"`{node.value[:40]}` is not what its tag `{node.tag.replace(_TAG, '!!')}` says")
            return ""

    def _resolve(self, node: yaml.ScalarNode) -> object:
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return self.scalars.construct_yaml_bool(node)
            case "int" if ":" not in node.value:
                return self.scalars.construct_yaml_int(node)
            case "float" if ":" not in node.value:
                number = self.scalars.construct_yaml_float(node)
                if not math.isfinite(number):
                    self._report(node, f"`{node.value}` is not a number that Kubernetes can store")
                    return 0.0
                return number
            case "seq" | "map":
                self._report(node, f"`{node.value[:40]}` is not what its tag says")
        return node.value

    def _expect_tag(self, node: yaml.Node, name: str) -> None:
        if node.tag != _TAG + name:
            self._report(node, f"this is not what its tag `{node.tag.replace(_TAG, '!!')}` says")

    def _last_line(self, node: yaml.Node) -> int:
        """Return a collection's last line that has content: its end mark is where the next token begins."""
        end = _place_of_mark(node.end_mark)
        start = _place_of_mark(node.start_mark)
        last = end.line if self._code_before(end) else end.line - 1
        while last > start.line and self.source.lines[last - 1].lstrip()[:1] in ("", "#"):
            last -= 1
        return max(last, start.line)

    def _code_before(self, place: Place) -> bool:
        if place.line > len(self.source.lines):  # libyaml ends a last line without a newline on the next one
            return False
        return bool(self.source.lines[place.line - 1][: place.column - 1].strip())

    def _spend(self, node: yaml.Node) -> None:
        self.left -= 1
        if self.left < 0:
            message = f"aliases here expand to more than {MAX_EXPANDED:,} values"
            raise_problems([*self.problems, self._problem(node, message)])

    def _duplicate(self, key: str, node: yaml.Node, first: yaml.Node) -> None:
        place = _place_of_mark(first.start_mark)
        self._report(node, f"key `{key}` is here twice; the first is at {place.line}:{place.column}")

    def _report(self, node: yaml.Node, message: str) -> None:
        self.problems.append(self._problem(node, message))

    def _problem(self, node: yaml.Node, message: str) -> Problem:
        return Problem(self.source, _place_of_mark(node.start_mark), message)


def describe(value: object) -> str:
    """Return what kind of value this is, in the words of YAML's users."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a mapping"
