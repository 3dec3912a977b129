"""Groups whose commands are imported when one is called: help and completion need their names and one line of each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PLAIN_HELP", "Late", "late_group"]

# Help without boxes, as kubectl's: drawing them takes as long as all else that a command does to start.
PLAIN_HELP: Final = None


class Late(NamedTuple):
    """A command, or a group of them, that is imported when it is called.

    Attributes:
        place: ``MODULE:NAME`` of the function or of the `typer.Typer`.
        line: What the help of the group above says of it: the first lines of its own.
    """

    place: str
    line: str

    def load(self, name: str) -> Any:  # noqa: ANN401 - a command of the library's own classes, which changed over time
        """Import it."""
        module, _, attribute = self.place.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            found.rich_markup_mode = PLAIN_HELP
            return typer.main.get_group(found)
        app = typer.Typer(add_completion=False, rich_markup_mode=PLAIN_HELP)
        app.command(name)(found)
        return typer.main.get_command(app)


def late_group(commands: Mapping[str, Late]) -> type[TyperGroup]:
    """Return a class for `typer.Typer` whose groups have these commands beside their own."""

    class Group(TyperGroup):
        def __init__(self, **given: Any) -> None:  # noqa: ANN401 - passed on
            super().__init__(**given)
            lines = {name: TyperCommand(name=name, help=late.line) for name, late in commands.items()}
            self.commands = {**self.commands, **lines}

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - as the library's
            if args and (late := commands.get(args[0])):
                self.commands[args[0]] = late.load(args[0])
            return super().resolve_command(ctx, args)

    return Group
