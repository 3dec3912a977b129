"""One document from one file, and ways through its plain data."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from clusterguard.documents.yamlfile import parse_documents, raise_problems
from clusterguard.errors import InvalidDocumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from clusterguard.documents.yamlfile import DataPath, SourceText, YamlDocument

__all__ = ["only_document", "raising", "value_at", "walk"]


def only_document(source: SourceText, *, noun: str, hint: str, literal_keys: Collection[str] = ()) -> YamlDocument:
    """Parse a text that holds exactly one document.

    Args:
        source: The file's text.
        noun: What such a document is: ``drill``.
        hint: What to do about an empty one.
        literal_keys: As in `parse_documents`.

    Raises:
        InvalidDocumentError: It is not YAML, is empty or holds more.
    """
    documents = parse_documents(source, literal_keys=literal_keys)
    if not documents:
        location = f"{source.path}:1:1"
        raise InvalidDocumentError(
            f"{location}: the file is empty",
            fields={"places": [location]},
            hint=hint,
        )
    raise_problems(
        document.problem((), f"a second document; a {noun} file holds one {noun}") for document in documents[1:]
    )
    return documents[0]


@contextmanager
def raising(kind: type[InvalidDocumentError]) -> Iterator[None]:
    """Make what is wrong in a document known by the error of its kind."""
    try:
        yield
    except InvalidDocumentError as error:
        raise kind(error.message, fields=error.fields, hint=error.hint) from error.__cause__


def value_at(data: object, path: DataPath) -> object:
    """Return what is at a path in plain data, or None where nothing is."""
    for part in path:
        found = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if not found:
            return None
        data = data[part]  # type: ignore[index]  # found says that it can be indexed
    return data


def walk(data: object, path: DataPath = ()) -> Iterator[tuple[DataPath, object]]:
    """Yield every value of plain data with its path, each before what is inside of it."""
    yield path, data
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from walk(value, (*path, key))
