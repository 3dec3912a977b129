"""``clusterguard velero location``: where backups rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clusterguard.cli.options import with_options
from clusterguard.cli.velero.options import JsonOption, NameArgument, NewNameArgument, ServerFlags, Words, YesOption
from clusterguard.cli.velero.shared import confirm, pairs, show, stamp, text_of

__all__ = ["app"]

app = typer.Typer(name="location", help="Where backups rest.", no_args_is_help=True)


@app.command("create")
@with_options
def create_location(
    name: NewNameArgument,
    bucket: Annotated[str, typer.Option(help="The bucket; it must exist.")],
    server: ServerFlags,
    prefix: Annotated[str, typer.Option(help="The part of the bucket that is Velero's.")] = "",
    provider: Annotated[str, typer.Option(help="The plugin that reaches it.")] = "aws",
    config: Annotated[Words, typer.Option("--config", help="KEY=VALUE, such as region=… or s3Url=….")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="Credentials of its own, in a file.")] = None,
    credential: Annotated[str, typer.Option(help="Credentials of its own: SECRET=KEY.")] = "",
    ca: Annotated[Path | None, typer.Option("--cacert", help="The CA of the object store, as PEM.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Backups go here unless they say otherwise.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Restore only.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until Velero has looked at it.")] = True,
) -> None:
    """Create a location, and return once Velero can use it."""
    from clusterguard.terminal import out
    from clusterguard.velero import LocationSpec

    secret_key = pairs([credential] if credential else None, "--credential")
    spec = LocationSpec(
        bucket=bucket,
        prefix=prefix,
        provider=provider,
        config=pairs(config, "--config"),
        credentials=text_of(secret_file) if secret_file else None,
        credential=next(iter(secret_key.items()), None),
        ca=text_of(ca) if ca else "",
        default=default,
        read_only=read_only,
    )
    with server.client() as velero:
        made = velero.locations.create(name, spec, wait=wait)
    out.print(f"location {name} is {made.phase}", markup=False)


@app.command("list")
@with_options
def list_locations(server: ServerFlags, as_json: JsonOption = False) -> None:
    """Show the locations."""
    with server.client() as velero:
        found = velero.locations.list()
    rows = [
        (
            each.name,
            f"{each.bucket}/{each.prefix}".rstrip("/"),
            str(each.phase),
            "read-only" if each.read_only else "read-write",
            "default" if each.default else "",
            stamp(each.last_validated),
            each.message,
        )
        for each in found
    ]
    show(found, ("name", "bucket", "phase", "access", "", "seen (UTC)", "message"), rows, as_json=as_json)


@app.command("set")
@with_options
def set_location(
    name: NameArgument,
    server: ServerFlags,
    default: Annotated[bool, typer.Option("--default", help="Backups go here unless they say otherwise.")] = False,
    read_only: Annotated[bool | None, typer.Option("--read-only/--read-write")] = None,
) -> None:
    """Change a location."""
    from clusterguard.terminal import out

    with server.client() as velero:
        if default:
            velero.locations.set_default(name)
        if read_only is not None:
            velero.locations.set_read_only(name, read_only=read_only)
        now = velero.locations.get(name)
    access = "read-only" if now.read_only else "read-write"
    out.print(f"location {name} is {access}{', the default one' if now.default else ''}", markup=False)


@app.command("delete")
@with_options
def delete_location(name: NameArgument, server: ServerFlags, yes: YesOption = False) -> None:
    """Delete a location and its Backup objects; the bucket keeps everything."""
    from clusterguard.terminal import out

    with server.client() as velero:
        velero.locations.get(name)
        confirm(f"Velero forgets location {name} and the backups in it; the bucket keeps them.", yes=yes)
        deleted = velero.locations.delete(name)
    out.print("deleted " + ", ".join(deleted), markup=False, soft_wrap=True)
