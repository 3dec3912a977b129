"""YAML that people read: keys in the order they were given, and texts of several lines as such."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["flow_text", "yaml_text"]

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


class _FlowDumper(_Dumper):
    """Writes texts of several lines on one."""


_FlowDumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None),
)


def yaml_text(documents: Iterable[Mapping[str, Any]]) -> str:
    """Return documents as one text; several of them begin with ``---`` each."""
    written = list(documents)
    return yaml.dump_all(
        written, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH, explicit_start=len(written) > 1
    )


def flow_text(value: Any, *, width: float = math.inf) -> str:  # noqa: ANN401 - whatever a document may hold
    """Return a value on one line, or on lines of a width, as it may stand in a document: ``{kind: Pod, name: a}``."""
    text = yaml.dump(
        value, Dumper=_FlowDumper, sort_keys=False, allow_unicode=True, default_flow_style=True, width=width
    )
    return text.removesuffix("\n").removesuffix("\n...")
