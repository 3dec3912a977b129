"""``clusterguard``: puts the nouns together, and turns errors into words and exit codes."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from clusterguard.cli import (
    audit,
    cluster,
    drill,
    etcd,
    fleet,
    inventory,
    metrics,
    policy,
    run,
    schedule,
    status,
    toolchain,
    velero,
)
from clusterguard.errors import ClusterGuardError

__all__ = ["app", "main"]

_COULD_NOT_TELL, _INTERRUPTED = 2, 130

app = typer.Typer(
    name="clusterguard",
    help="Prove that Kubernetes backups restore.",
    epilog="Exit codes: 0 done, or proven · 1 the answer is no: not proven, not intact, not equal · "
    "2 could not tell: an error, or wrong usage · 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run.run)
app.command()(run.retain)
app.command()(status.status)
app.command()(metrics.metrics)
policy.app.command()(run.fetch)
policy.app.command()(run.rotate)
app.add_typer(policy.app)
app.add_typer(schedule.app)
app.add_typer(audit.app)
app.add_typer(fleet.app)
app.add_typer(drill.app)
app.add_typer(etcd.app)
app.add_typer(velero.app)
app.add_typer(inventory.app)
app.add_typer(cluster.app)
app.add_typer(toolchain.app)


def _print_version(asked: bool) -> None:
    if asked:
        from clusterguard import __version__

        typer.echo(f"clusterguard {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from clusterguard.terminal import err

    # Whoever ends a job sends this; what was started must be given back then, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(prog_name="clusterguard")
    except ClusterGuardError as error:
        err.print(f"error: {error.message}", style="red", markup=False, soft_wrap=True)
        if error.hint:
            err.print(f"  → {error.hint}", style="yellow", markup=False, soft_wrap=True)
        sys.exit(_COULD_NOT_TELL)
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # what the command line library makes of Ctrl-C
            err.print("interrupted; what was started has been given back", style="yellow")
        raise
