"""A diff of objects in a terminal."""

from __future__ import annotations

from typing import Final

from rich.text import Text

__all__ = ["coloured_diff"]

_STYLES: Final = {"+++": "bold green", "---": "bold red", "@@": "cyan", "+": "green", "-": "red"}
_MOST_LINES: Final = 200


def coloured_diff(diff: str, *, whole: str) -> Text:
    """Return a diff in colours, or its beginning where it is long.

    Args:
        diff: Its text.
        whole: Where all of it is, for the last line.
    """
    lines = diff.splitlines()
    text = Text()
    for line in lines[:_MOST_LINES]:
        style = next((style for start, style in _STYLES.items() if line.startswith(start)), "")
        text.append(line + "\n", style=style)
    if len(lines) > _MOST_LINES:
        text.append(f"… {len(lines) - _MOST_LINES} more lines are in {whole}")
    text.rstrip()
    return text
