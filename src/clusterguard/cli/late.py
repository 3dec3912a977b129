"""Groups whose commands are imported when one is called: help and completion need their names and one line of each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
            return _taking_text(typer.main.get_group(found))
        app = typer.Typer(add_completion=False, rich_markup_mode=PLAIN_HELP)
        app.command(name)(found)
        return _taking_text(typer.main.get_command(app))


class _Reading(NamedTuple):
    """Takes text as it is written, and what is left out as None; all else is the library's.

    The library reads these, too, by pydantic, whose import takes as long as all else that most commands do to start.
    """

    by_library: Callable[[], Any]

    def coerce(self, value: Any, *, param: Any, ctx: Any) -> Any:  # noqa: ANN401 - as the library's
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        wanted = param.type_descriptor
        if wanted.annotation in (str, list[str]) and wanted.parameter_info.parser is None:
            texts = value if several else [value]
            if isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts):
                return value
        return self.by_library().coerce(value, param=param, ctx=ctx)


class _Option(TyperOption):
    def get_runtime_param(self) -> Any:  # noqa: ANN401 - the library's class for it has no public name
        return _Reading(super().get_runtime_param)


class _Argument(TyperArgument):
    multiple = False

    def get_runtime_param(self) -> Any:  # noqa: ANN401 - as above
        return _Reading(super().get_runtime_param)


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401 - as the library's
        return [_taking_text(each) for each in super().get_params(ctx)]


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401 - as the library's
        return [_taking_text(each) for each in super().get_params(ctx)]


_OURS: Final[Mapping[type, type]] = {
    TyperOption: _Option,
    TyperArgument: _Argument,
    TyperCommand: _Command,
    TyperGroup: _Group,
}


def _taking_text(part: Any) -> Any:  # noqa: ANN401 - whatever the library made
    """Let an option, an argument, or a command and all below it take text as it is written."""
    part.__class__ = _OURS.get(type(part), type(part))  # the library makes some of them by names that nobody can give
    for each in getattr(part, "commands", {}).values():
        _taking_text(each)
    return part


def late_group(commands: Mapping[str, Late]) -> type[TyperGroup]:
    """Return a class for `typer.Typer` whose groups have these commands beside their own."""

    class Group(_Group):
        def __init__(self, **given: Any) -> None:  # noqa: ANN401 - passed on
            super().__init__(**given)
            lines = {name: TyperCommand(name=name, help=late.line) for name, late in commands.items()}
            self.commands = {**self.commands, **lines}

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - as the library's
            if args and (late := commands.get(args[0])):
                self.commands[args[0]] = late.load(args[0])
            return super().resolve_command(ctx, args)

    return Group
