"""``clusterguard``: puts the nouns together, and turns errors into words and exit codes."""

from __future__ import annotations

import select
import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from clusterguard.cli.late import PLAIN_HELP, Late, late_group
from clusterguard.errors import ClusterGuardError
from clusterguard.threads import interrupt_between_locks

__all__ = ["app", "main"]

_COULD_NOT_TELL, _INTERRUPTED = 2, 130
_BROKEN_PIPE = 141  # what a shell calls an end by SIGPIPE, which is how other programs end there

_COMMANDS = {
    "rehearse": Late(
        "clusterguard.cli.rehearse:rehearse",
        "Restore a backup into a throwaway cluster, and compare it.",
    ),
    "run": Late("clusterguard.cli.run:run", "Do what a policy says, once: back up, verify, remove, prove."),
    "retain": Late("clusterguard.cli.run:retain", "Remove what a policy's retention removes; do nothing else."),
    "status": Late(
        "clusterguard.cli.status:status",
        "Show what is protected right now. Exit code 1: a policy is not, or is at risk; 2: of one nothing can be read.",
    ),
    "coverage": Late(
        "clusterguard.cli.coverage:coverage",
        "Show what no backup and no proof covers. Exit code 1: something is not covered; 2: not all could be seen.",
    ),
    "metrics": Late(
        "clusterguard.cli.metrics:metrics",
        "Serve Prometheus metrics at /metrics until it is interrupted.",
    ),
    "policy": Late("clusterguard.cli.policy:app", "Policies: what is backed up, when, where to."),
    "schedule": Late("clusterguard.cli.schedule:app", "Schedules: print a policy's for cron, CronJobs and CI."),
    "audit": Late(
        "clusterguard.cli.audit:app",
        "The audit trail: what was done with backups, chained by hashes.",
    ),
    "fleet": Late("clusterguard.cli.fleet:app", "Fleets: the drills of many clusters, and one report."),
    "drill": Late("clusterguard.cli.drill:app", "Drills: back up, break, restore, and prove it."),
    "evidence": Late("clusterguard.cli.evidence:app", "The evidence of drills: signed bundles, checked offline."),
    "report": Late("clusterguard.cli.report:report", "Write a page about the last run of every drill."),
    "etcd": Late("clusterguard.cli.etcd:app", "etcd snapshots."),
    "snapshot": Late("clusterguard.cli.snapshot:app", "Look into etcd snapshots, without any cluster or program."),
    "velero": Late("clusterguard.cli.velero:app", "Velero: backups and restores of API objects."),
    "inventory": Late(
        "clusterguard.cli.inventory:app", "Inventories: what is in a cluster, to compare a restored one."
    ),
    "cluster": Late(
        "clusterguard.cli.cluster:app",
        "Clusters: embedded ones with simulated pods, and kind's.",
    ),
    "toolchain": Late(
        "clusterguard.cli.toolchain:app", "The programs that clusterguard runs: etcd, kube-apiserver, …."
    ),
}

app = typer.Typer(
    name="clusterguard",
    cls=late_group(_COMMANDS),
    help="Prove that Kubernetes backups restore.",
    epilog="Exit codes: 0 done, or proven · 1 the answer is no: not proven, not intact, not equal · "
    "2 could not tell: an error, or wrong usage · 130 interrupted · 141 nobody reads the output any more.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=PLAIN_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


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
