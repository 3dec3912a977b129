"""``clusterguard velero``: install Velero, make backups and restores, and judge them by evidence."""

from __future__ import annotations

import typer

from clusterguard.cli.velero import locations, runs, schedules, server
from clusterguard.cli.velero.verify import verify

__all__ = ["app"]

app = typer.Typer(name="velero", help="Velero: backups and restores of API objects.", no_args_is_help=True)
for _part in (server.app, locations.app, runs.backups, runs.restores, schedules.app):
    app.add_typer(_part)
app.command("verify")(verify)
