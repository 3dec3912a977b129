"""Options that several commands share stand once, in a dataclass; the command has them as if it spelled them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from clusterguard.cli.options import with_options


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A required option, and one that is not."""

    host: Annotated[str, typer.Option("--host")]
    port: Annotated[int, typer.Option("--port")] = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """Options with other defaults than a text."""

    again: Annotated[bool, typer.Option("--again/--once")] = False
    words: Annotated[list[str] | None, typer.Option("--word")] = None


@pytest.fixture
def called():
    """Call a command that takes both; return what it was given, or the output and the exit code."""
    app, given = typer.Typer(), []

    @app.command()
    @with_options
    def go(name: Annotated[str, typer.Argument()], where: Where, fast: bool = False, *, how: How) -> None:
        """Go there."""
        given.append((name, where, fast, how))

    def call(*words):
        ended = CliRunner().invoke(app, words)
        return given.pop() if given else (ended.exit_code, ended.output)

    return call


def test_what_was_not_given_has_the_defaults_of_the_dataclass(called):
    assert called("me", "--host", "h") == ("me", Where(host="h"), False, How())


def test_every_option_reaches_the_dataclass_that_lists_it(called):
    given = called("me", "--host", "h", "--port", "1", "--again", "--word", "a", "--word", "b", "--fast")
    assert given == ("me", Where(host="h", port=1), True, How(again=True, words=["a", "b"]))


def test_what_has_no_default_is_required(called):
    code, output = called("me")
    assert code == 2
    assert "--host" in output


def test_values_are_checked_as_if_the_command_spelled_the_option(called):
    code, output = called("me", "--host", "h", "--port", "many")
    assert code == 2
    assert "--port" in output


def test_the_help_lists_them_in_the_place_of_the_parameter(called):
    code, output = called("--help")
    assert code == 0
    places = [output.index(option) for option in ("--host", "--port", "--fast", "--again", "--word")]
    assert places == sorted(places)
