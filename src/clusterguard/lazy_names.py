"""Packages whose names are imported from their modules when they are first used.

The stub beside a package's ``__init__.py`` is the only list of its names: type checkers read it, and so does this.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["lazy_names"]


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a package.

    Args:
        package: Its ``__name__``.
        file: Its ``__file__``, with a stub beside it of lines such as ``from package.module import Name as Name``.
    """

    @cache
    def homes() -> dict[str, str]:
        import ast  # both are slow to load, and only needed once a name is used
        from pathlib import Path

        stub = ast.parse(Path(file).with_suffix(".pyi").read_text())
        imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
        return {each.name: str(node.module) for node in imports for each in node.names}

    def names() -> list[str]:
        return sorted(homes())

    def attribute(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
        if name == "__all__":
            return names()
        if name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes()[name]), name)

    return attribute, names
