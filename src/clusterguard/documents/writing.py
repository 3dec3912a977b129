"""YAML that people read: keys in the order they were given, and texts of several lines as such."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["yaml_text"]

_WIDTH = 110


class _Dumper(yaml.SafeDumper):
    """Writes every object in full, and texts of several lines as they are read."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Unquoted, PyYAML writes line ends of Unicode that it does not read back as they were.
    plain = all(line.isprintable() for line in text.split("\n"))
    style = '"' if not plain else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def yaml_text(documents: Iterable[Mapping[str, Any]]) -> str:
    """Return documents as one text; several of them begin with ``---`` each."""
    written = list(documents)
    return yaml.dump_all(
        written, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH, explicit_start=len(written) > 1
    )
