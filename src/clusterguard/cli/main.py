"""``clusterguard``: puts the nouns together, and turns errors into words and exit codes."""

from __future__ import annotations

import select
import signal
import sys
from contextlib import suppress
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
    rehearse,
    run,
    schedule,
    snapshot,
    status,
    toolchain,
    velero,
)
from clusterguard.errors import ClusterGuardError
from clusterguard.threads import interrupt_between_locks

__all__ = ["app", "main"]

_COULD_NOT_TELL, _INTERRUPTED = 2, 130
_BROKEN_PIPE = 141  # what a shell calls an end by SIGPIPE, which is how other programs end there

app = typer.Typer(
    name="clusterguard",
    help="Prove that Kubernetes backups restore.",
    epilog="Exit codes: 0 done, or proven · 1 the answer is no: not proven, not intact, not equal · "
    "2 could not tell: an error, or wrong usage · 130 interrupted · 141 nobody reads the output any more.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(rehearse.rehearse)
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
app.add_typer(snapshot.app)
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
    """Run the command line and end the process with its exit code; 1 is kept for the answer "no"."""
    # SIGTERM is what ends a job: what was started must be stopped then, as after Ctrl-C.
    interrupt_between_locks(signal.SIGTERM)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # jobs in the background are deaf to it
        interrupt_between_locks(signal.SIGINT)
    try:
        _run()
    except SystemExit as end:
        code = _exit_code(end)
        if code == _INTERRUPTED:
            with suppress(SystemExit):  # nobody may be reading standard error any more
                _print("interrupted; what was started has been stopped", style="yellow")
        raise SystemExit(code) from end


def _run() -> None:
    try:
        app(prog_name="clusterguard")
    except ClusterGuardError as error:
        _tell(error.message, error.hint)
        sys.exit(_COULD_NOT_TELL)
    except Exception as error:  # noqa: BLE001 - this is the door: Python's own exit code would be 1, a verdict
        _tell_crash(error)
        sys.exit(_COULD_NOT_TELL)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _exit_code(end: SystemExit) -> int:
    """Return the exit code that an end stands for; the command line library ends with 1 where nothing was answered."""
    cause = end.__context__
    if isinstance(cause, typer.Abort):  # a question that was answered by "no", by nobody, or by Ctrl-C
        interrupted = isinstance(cause.__context__, KeyboardInterrupt)
        return _INTERRUPTED if interrupted else _COULD_NOT_TELL
    if isinstance(cause, BrokenPipeError):
        if end.code == _BROKEN_PIPE or _is_unread(1) or _is_unread(2):
            return _BROKEN_PIPE
        _tell_crash(cause)  # another pipe than ours, which the library does not tell apart
        return _COULD_NOT_TELL
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    _tell(str(end.code), None)
    return _COULD_NOT_TELL


def _tell_crash(error: Exception) -> None:
    from clusterguard.cli.crash import describe, keep_traceback, traceback_of

    try:
        place = f"in {keep_traceback(error)}"
    except OSError as unwritable:
        typer.echo(traceback_of(error), nl=False, err=True)
        place = f"above ({unwritable})"
    _tell(describe(error), f"this is a bug in clusterguard; please report it with the traceback {place}")


def _is_unread(descriptor: int) -> bool:
    """Return whether nobody reads any more what is written there."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _tell(message: str, hint: str | None) -> None:
    _print(f"error: {message}", style="red")
    if hint:
        _print(f"  → {hint}", style="yellow")


def _print(text: str, *, style: str) -> None:
    from clusterguard.terminal import err  # slow, and --help need not wait for it

    err.print(text, style=style, markup=False, soft_wrap=True)
