"""``clusterguard velero location``: the buckets that hold backups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clusterguard.cli.options import with_options
from clusterguard.cli.velero.options import (
    Flags,
    JsonOption,
    NameArgument,
    NewNameArgument,
    ServerFlags,
    Words,
    YesOption,
    file_contents,
    key_value,
)
from clusterguard.cli.velero.output import confirm, show

if TYPE_CHECKING:
    from clusterguard.velero.resources import BackupStorageLocation

__all__ = ["app"]

app = typer.Typer(name="location", help="Where backups are stored.", no_args_is_help=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationFlags(Flags):
    """The fields of `LocationSpec`."""

    bucket: Annotated[str, typer.Option(help="The bucket; it must exist.")]
    prefix: Annotated[str, typer.Option(help="The part of the bucket that is Velero's.")] = ""
    provider: Annotated[str, typer.Option(help="The plugin for it.")] = "aws"
    config: Annotated[
        Words, typer.Option(parser=key_value, metavar="KEY=VALUE", help="Such as region=… or s3Url=….")
    ] = None
    credentials: Annotated[
        Any,
        typer.Option("--secret-file", parser=file_contents, metavar="FILE", help="Its own credentials, in a file."),
    ] = None
    credential: Annotated[
        Any, typer.Option(parser=key_value, metavar="SECRET=KEY", help="Its own credentials, in a Secret.")
    ] = None
    ca: Annotated[
        Any,
        typer.Option("--cacert", parser=file_contents, metavar="FILE", help="The CA of the object store, as PEM."),
    ] = None
    default: Annotated[bool, typer.Option("--default", help="Backups go here unless they say otherwise.")] = False
    read_only: Annotated[bool, typer.Option("--read-only", help="Restore only.")] = False


@app.command("create")
@with_options
def create_location(
    name: NewNameArgument,
    server: ServerFlags,
    flags: LocationFlags,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until Velero has looked at it.")] = True,
) -> None:
    """Create a location, and return once Velero can use it."""
    from clusterguard.velero import LocationSpec

    with server.client() as velero:
        made = velero.locations.create(name, LocationSpec(**{"bucket": "", **flags.given()}), wait=wait)
    typer.echo(f"location {name} is {made.phase}")


@app.command("list")
@with_options
def list_locations(server: ServerFlags, as_json: JsonOption = False) -> None:
    """Show the locations."""
    columns = {
        "name": lambda each: each.name,
        "bucket": lambda each: f"{each.bucket}/{each.prefix}".rstrip("/"),
        "phase": lambda each: each.phase,
        "access": _access,
        "": lambda each: "default" if each.default else "",
        "seen (UTC)": lambda each: each.last_validated,
        "message": lambda each: each.message,
    }
    with server.client() as velero:
        show(velero.locations.list(), columns, as_json=as_json)


@app.command("set")
@with_options
def set_location(
    name: NameArgument,
    server: ServerFlags,
    default: Annotated[bool, typer.Option("--default", help="Backups go here unless they say otherwise.")] = False,
    read_only: Annotated[bool | None, typer.Option("--read-only/--read-write")] = None,
) -> None:
    """Change a location."""
    with server.client() as velero:
        if default:
            velero.locations.set_default(name)
        if read_only is not None:
            velero.locations.set_read_only(name, read_only=read_only)
        now = velero.locations.get(name)
    typer.echo(f"location {name} is {_access(now)}{', the default one' if now.default else ''}")


@app.command("delete")
@with_options
def delete_location(name: NameArgument, server: ServerFlags, yes: YesOption = False) -> None:
    """Delete a location and its Backup objects; the bucket keeps everything."""
    with server.client() as velero:
        velero.locations.get(name)
        confirm(f"Deletes location {name} and its Backup objects; the bucket keeps the backups.", yes=yes)
        deleted = velero.locations.delete(name)
    typer.echo("deleted " + ", ".join(deleted))


def _access(location: BackupStorageLocation) -> str:
    return "read-only" if location.read_only else "read-write"
