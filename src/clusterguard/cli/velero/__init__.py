"""``clusterguard velero``: install it, make backups and restores, and hear what really came of them."""

from __future__ import annotations

import typer

from clusterguard.cli.velero import backups, locations, restores, schedules, server

__all__ = ["app"]

app = typer.Typer(name="velero", help="Velero: backups and restores of API objects.", no_args_is_help=True)
for _part in (server, locations, backups, restores, schedules):
    app.add_typer(_part.app)
