"""The command line with everything loaded that it imports only when it is called."""

import typer

from clusterguard.cli.main import app


def whole_command_line():
    """Return the group of everything; so are the groups in it."""
    group = typer.main.get_command(app)
    for name in list(group.commands):
        group.resolve_command(typer.Context(group), [name])
    return group
