"""What no bundle may hold: the values of Secrets.

In inventories they stand as digests under a key that is forgotten with the run, so that equal ones are seen to be equal
and nobody can try values against them. In every other file, where a log or a message may have repeated one, a value
that is known is made unreadable.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from clusterguard.validate.field_owners import LAST_APPLIED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from clusterguard.model.inventory import Inventory, ObjectRef

__all__ = ["UNREADABLE", "SecretValues"]

UNREADABLE: Final = "•••"
"""What stands in the place of a value."""

_SHORTEST: Final = 8  # characters: shorter ones are words and numbers that stand everywhere
_LONG_LINE: Final = 20  # of a value of several lines, such as a key in PEM, each line of this length is one, too
_CLEAR: Final = frozenset({"apiVersion", "kind", "metadata", "type", "immutable"})


class SecretValues:
    """The values of all Secrets that a run has met."""

    def __init__(self, *, digest_key: bytes | None = None) -> None:
        self._key = digest_key or secrets.token_bytes(32)
        self._values: set[str] = set()
        self._names: set[str] = set()
        self._telling: list[str] | None = None  # made when it is asked for

    def learn(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Take note of the Secrets among these objects, and of what everything is called."""
        self._telling = None
        for item in objects:
            metadata = item.get("metadata") or {}
            self._names |= {str(metadata.get("name")), str(metadata.get("namespace")), str(item.get("kind"))}
            if _is_secret(item):
                for value in (item.get("stringData") or {}).values():
                    self._note(str(value))
                for value in (item.get("data") or {}).values():
                    self._note_encoded(str(value))

    def learn_inventory(self, inventory: Inventory) -> None:
        """Take note of the Secrets of an inventory."""
        self.learn(map(orjson.loads, (*inventory.objects.values(), *inventory.system.values())))

    def in_digests(self, inventory: Inventory) -> Inventory:
        """Return an inventory with digests in the place of values of Secrets, and of what repeats them."""
        return replace(
            inventory,
            objects={ref: self._digested(ref, data) for ref, data in inventory.objects.items()},
            system={ref: self._digested(ref, data) for ref, data in inventory.system.items()},
        )

    def hidden(self, data: Any) -> Any:  # noqa: ANN401 - JSON
        """Return JSON with every known value in its texts made unreadable; keys stay."""
        match data:
            case str():
                return self.hidden_text(data)
            case list() | tuple():
                return [self.hidden(each) for each in data]
            case dict():
                return {key: self.hidden(value) for key, value in data.items()}
        return data

    def hidden_text(self, text: str) -> str:
        """Return a text with every known value in it made unreadable."""
        for value in self._hideable():
            if value in text:
                text = text.replace(value, UNREADABLE)
        return text

    def _hideable(self) -> list[str]:
        if self._telling is None:
            # What something is called is told anyway; and a longer one may hold a shorter one.
            self._telling = sorted(self._values - self._names, key=lambda value: (-len(value), value))
        return self._telling

    def _note_encoded(self, encoded: str) -> None:
        self._note(encoded)
        with suppress(binascii.Error, UnicodeDecodeError):  # not a text: then no message repeats it
            self._note(base64.b64decode(encoded, validate=True).decode())

    def _note(self, value: str) -> None:
        lines = value.splitlines()
        found = {value.strip(), *(line.strip() for line in lines if len(line) >= _LONG_LINE and len(lines) > 1)}
        for each in found:
            if len(each) >= _SHORTEST:
                self._values |= {
                    each,
                    base64.b64encode(each.encode()).decode(),
                    json.dumps(each)[1:-1],  # as it stands inside of JSON that a text holds
                    json.dumps(each, ensure_ascii=False)[1:-1],
                }

    def _digested(self, ref: ObjectRef, data: bytes) -> bytes:
        if ref.full_kind != "Secret":
            return self._hidden_bytes(data)
        item = orjson.loads(data)
        annotations = item["metadata"].get("annotations") or {}
        if LAST_APPLIED in annotations:
            annotations[LAST_APPLIED] = self._digest(annotations[LAST_APPLIED])
        for key in item.keys() - _CLEAR:
            held = item[key]
            item[key] = (
                {name: self._digest(value) for name, value in held.items()}
                if isinstance(held, dict)
                else self._digest(held)
            )
        item["metadata"] = self.hidden(item["metadata"])
        return orjson.dumps(item, option=orjson.OPT_SORT_KEYS)

    def _hidden_bytes(self, data: bytes) -> bytes:
        text = data.decode()
        if not any(value in text for value in self._hideable()):
            return data
        return orjson.dumps(self.hidden(orjson.loads(data)), option=orjson.OPT_SORT_KEYS)

    def _digest(self, value: object) -> str:
        return f"hmac-sha256:{hmac.new(self._key, orjson.dumps(value), hashlib.sha256).hexdigest()}"


def _is_secret(item: Mapping[str, Any]) -> bool:
    return (item.get("apiVersion"), item.get("kind")) == ("v1", "Secret")
