"""How records are stored: as JSON with the number of its format, by pydantic from the dataclasses that they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from clusterguard.errors import ClusterGuardError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["StoredFormat"]

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFormat(Generic[Record]):
    """One kind of record.

    Attributes:
        adapter: Of its dataclass; keys that it does not know are ignored.
        number: Of the format that this release writes, and the newest that it reads.
        noun: What people call it.
        damaged: The error for what is not such a record.
        hint: What to do then.
    """

    adapter: TypeAdapter[Record]
    number: int
    noun: str
    damaged: type[ClusterGuardError]
    hint: str

    def dump(
        self, record: Record, *, indent: bool = True, without: frozenset[str] = frozenset(), **more: object
    ) -> bytes:
        """Return a record as it is stored, without some fields, and with more keys that only other programs read."""
        fields = self.adapter.dump_python(record, mode="json", by_alias=True, exclude=set(without))
        document = {**more, "format": self.number, **fields}
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 if indent else None)

    def parse(self, text: bytes) -> Record:
        """Read a record.

        Raises:
            ConfigError: A later release wrote it.
            ClusterGuardError: As ``damaged`` says: it is not such a record, or not any more.
        """
        try:
            return self.load(orjson.loads(text))
        except orjson.JSONDecodeError as error:
            raise self._damaged(str(error)) from error

    def load(self, document: Mapping[str, Any]) -> Record:
        """Read a record that was parsed; see `parse`."""
        found = document.get("format") if isinstance(document, dict) else None
        if type(found) is int and found > self.number:
            raise ConfigError(
                f"{self.noun} has format {found}; this release reads {self.number}",
                hint="a later release wrote it: use that one",
            )
        if type(found) is not int or found != self.number:
            raise self._damaged(f"its format is {found!r}")
        try:
            return self.adapter.validate_python(document)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise self._damaged(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error

    def _damaged(self, problem: str) -> ClusterGuardError:
        return self.damaged(f"{self.noun} cannot be read: {problem}", hint=self.hint)
