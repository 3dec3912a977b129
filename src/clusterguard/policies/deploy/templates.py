"""The documents that the generators print, as they are written in ``templates.yaml``."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

__all__ = ["fill"]


def fill(template: str, **values: object) -> Any:  # noqa: ANN401 - whatever the template is
    """Return a template with its ``$names`` replaced by values of any kind; keys with the value None are left out."""

    def filled(node: object) -> object:
        match node:
            case dict():
                entries = ((key, filled(each)) for key, each in node.items())
                return {key: each for key, each in entries if each is not None}
            case list():
                return [filled(each) for each in node]
            case str() if node.startswith("$") and node[1:].isidentifier():
                return deepcopy(values[node[1:]])
        return node

    return filled(_templates()[template])


@cache
def _templates() -> dict[str, Any]:
    text = files(__package__).joinpath("templates.yaml").read_text(encoding="utf-8")
    templates: dict[str, Any] = yaml.safe_load(text)
    return templates
