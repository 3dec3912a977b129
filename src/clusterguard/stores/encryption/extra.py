"""Libraries that only some installations have."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["require"]


def require(library: str, *, purpose: str) -> ModuleType:
    """Return a library of the extra ``policy``.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise ConfigError(
            f"{purpose} needs the library {library}, which is not installed",
            hint="pip install 'clusterguard[policy]'",
        ) from error
