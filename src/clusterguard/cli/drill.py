"""``clusterguard drill``: run drills without pytest, look at what they would do, print their schema."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clusterguard.cli.options import (
    AllowContextOption,
    ClusterOption,
    KubeconfigOption,
    LockTimeoutOption,
    duration_of,
    with_options,
)

if TYPE_CHECKING:
    from clusterguard.drills import Drill, DrillResult, DrillSettings
    from clusterguard.drills.stored import StoredBackups
    from clusterguard.evidence.options import EvidenceSettings
    from clusterguard.model.progress import ProgressSink
    from clusterguard.toolchain import Toolchain

__all__ = ["app", "drill_files"]

_PROVEN, _NOT_PROVEN, _COULD_NOT_TELL = 0, 1, 2
_ALL = 100.0  # percent of the defects

app = typer.Typer(name="drill", help="Drills: back up, break, restore, and prove it.", no_args_is_help=True)

_Files = Annotated[list[Path], typer.Argument(help="Drill files, or folders of them.", metavar="FILE…")]
_Cluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        help="Cluster of drills that name none: "
        "embedded, embedded:NAME, kind, kind:NAME, context:NAME, kubeconfig:PATH.",
        envvar="CLUSTERGUARD_DRILL_CLUSTER",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """How drills are run."""

    cluster: _Cluster = "embedded"
    allow_context: AllowContextOption = None
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", help="The kubeconfig of context: clusters.", envvar="KUBECONFIG")
    ] = None
    node_shell: Annotated[
        str,
        typer.Option(
            "--node-shell",
            help="How to become root on the control-plane node of context: clusters of kubeadm: local, docker:NAME or "
            "ssh:[USER@]HOST.",
            envvar="CLUSTERGUARD_NODE_SHELL",
        ),
    ] = ""
    evidence: Annotated[
        str,
        typer.Option(
            "--evidence",
            help="Keep the evidence of every drill here: a folder, or s3://BUCKET/PREFIX.",
            envvar="CLUSTERGUARD_DRILL_EVIDENCE",
            metavar="DIR",
        ),
    ] = ""
    evidence_key: Annotated[
        Path | None,
        typer.Option(
            "--evidence-key",
            help="Sign it with this private key: Ed25519 or ECDSA P-256 in PEM, or one of cosign.",
            envvar="CLUSTERGUARD_DRILL_EVIDENCE_KEY",
            metavar="FILE",
        ),
    ] = None
    evidence_passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--evidence-passphrase-file",
            help="File with the passphrase of that key; or set COSIGN_PASSWORD.",
            metavar="FILE",
        ),
    ] = None
    keep: Annotated[
        Literal["never", "on-failure", "always"],
        typer.Option("--keep", help="Leave created clusters running for a look."),
    ] = "never"
    lock_timeout: LockTimeoutOption = ""
    longest_wait: Annotated[
        str, typer.Option("--longest-wait", help="Cap on the timeout of every check, such as 10s.", metavar="DURATION")
    ] = ""
    selector: Annotated[
        str, typer.Option("--selector", help="Run only drills with these labels, such as tier=nightly.")
    ] = ""
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; what happens meanwhile goes to standard error.")
    ] = False

    def settings(self) -> DrillSettings:
        """Return what the person decides, as drills take it."""
        from clusterguard.drills import DrillSettings

        return DrillSettings(
            cluster=self.cluster,
            allowed_contexts=tuple(self.allow_context or ()),
            kubeconfig=self.kubeconfig,
            node_shell=self.node_shell,
            lock_timeout=duration_of(self.lock_timeout, "--lock-timeout") or timedelta(0),
            longest_wait=duration_of(self.longest_wait, "--longest-wait"),
            keep=self.keep,
            **_evidence(self.evidence, self.evidence_key, self.evidence_passphrase_file),
            stored=_stored_backups(),
        )


@app.command()
@with_options
def run(
    files: _Files,
    runs: _Runs,
    omit_restore: Annotated[
        bool,
        typer.Option("--omit-restore", help="Leave the restore out: a drill that stays green proves nothing."),
    ] = False,
) -> None:
    """Run drills. Exit code 0: all proven; 1: one is not proven; 2: one could not tell, or could not be run here."""
    _run_all(files, runs, replace(runs.settings(), omit_restore=omit_restore))


@app.command()
@with_options
def mutate(
    files: _Files,
    runs: _Runs,
    minimum: Annotated[
        float, typer.Option("--min", help="Percent of the defects that must be found.", min=0, max=100)
    ] = 100,
) -> None:
    """Run drills, and once each is proven put defects into what was restored, one at a time: its checks must find them.

    Exit code 0: all proven, and enough defects found; 1: not so; 2: one could not tell, or could not be run here.
    """
    _run_all(files, runs, replace(runs.settings(), mutate=minimum))


@app.command()
def init(
    cluster: ClusterOption,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The namespace to look at.")],
    folder: Annotated[
        Path | None, typer.Argument(help="Where it is written; drills/NAMESPACE when left out.", metavar="FOLDER")
    ] = None,
    kubeconfig: KubeconfigOption = None,
    backup: Annotated[
        Literal["auto", "etcd", "velero"],
        typer.Option("--backup", help="What backs it up; auto is etcd, or Velero where only that can be had."),
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace the files of a drill that is there.")] = False,
    no_mutate: Annotated[bool, typer.Option("--no-mutate", help="Write it, and do not run it.")] = False,
) -> None:
    """Write a drill of a namespace with a stand-in for it, and see on an embedded cluster how many defects it finds.

    The cluster is only looked at; Secrets get values that are made up. Exit codes as of drill mutate.
    """
    from clusterguard.cli.drill_init import write_first_drill

    drill = write_first_drill(cluster, namespace, folder, kubeconfig=kubeconfig, backup=backup, force=force)
    if not no_mutate:
        runs = _Runs()
        _run_all([drill], runs, replace(runs.settings(), mutate=_ALL))


def _run_all(files: list[Path], runs: _Runs, settings: DrillSettings) -> None:
    from clusterguard.drills import DrillRunner
    from clusterguard.drills.programs import ProgramsInTurn, require_docker_for
    from clusterguard.drills.requirements import skip_reason
    from clusterguard.terminal import err, out, progress_sink
    from clusterguard.terminal.drill_view import DrillView

    drills, cluster = _chosen(files, runs.selector), settings.cluster
    require_docker_for(drills, default_cluster=cluster)
    shown = err if runs.as_json else out
    runner = DrillRunner(settings=settings, on_event=DrillView(shown))
    reasons = {drill.id: skip_reason(drill, default_cluster=cluster) for drill in drills}
    skipped = {name: reason for name, reason in reasons.items() if reason}
    results: list[DrillResult] = []
    try:
        with ProgramsInTurn(drills, default_cluster=cluster, toolchain=_toolchain, show=progress_sink) as programs:
            for drill in programs.in_turn(drills):
                if drill.id not in skipped:
                    programs.wait_for(drill)
                    results.append(runner.run(drill))
    finally:  # what has been shown until then is printed, also where a later one cannot be run
        for name, reason in skipped.items():
            shown.print(f"SKIPPED {name}: {reason}", markup=False, soft_wrap=True)
        if runs.as_json:
            not_run = [{"drill": name, "verdict": "SKIPPED", "reason": reason} for name, reason in skipped.items()]
            typer.echo(json.dumps([*(each.to_dict() for each in results), *not_run], indent=2, ensure_ascii=False))
    raise typer.Exit(_COULD_NOT_TELL if skipped else _exit_code(results))


@app.command()
def plan(files: _Files, cluster: _Cluster = "embedded") -> None:
    """Print what drills would do, step by step, and do nothing of it."""
    from clusterguard.drills.plan import plan_text

    for drill in _chosen(files, ""):
        typer.echo(plan_text(drill, default_cluster=cluster))


@app.command()
def schema() -> None:
    """Print the JSON Schema of drill files, for editors."""
    from clusterguard.drills.schema import drill_schema_text

    typer.echo(drill_schema_text(), nl=False)


def _evidence(location: str, key: Path | None, passphrase_file: Path | None) -> EvidenceSettings:
    """Return the settings of evidence; a key that will not do is told before any drill runs."""
    from clusterguard.evidence.options import evidence_settings

    return evidence_settings(location, key=key, passphrase_file=passphrase_file, environ=os.environ)


def _stored_backups() -> StoredBackups:
    from clusterguard.policies.copies.stored import PolicyBackups

    return PolicyBackups(environ=os.environ)


def _toolchain(progress: ProgressSink) -> Toolchain:
    from clusterguard.toolchain import from_environment

    return from_environment(os.environ, progress=progress)


def _chosen(files: list[Path], selector: str) -> list[Drill]:
    """Load every drill before the first one runs, so that a slip in the last file is found at once."""
    from clusterguard.documents.values import selects
    from clusterguard.drills import load_drills
    from clusterguard.errors import ConfigError

    found = [path for file in files for path in drill_files(file)]
    drills = [drill for path in found for drill in load_drills(path, environ=os.environ, root=Path.cwd())]
    try:
        chosen = [drill for drill in drills if selects(selector, drill.metadata.labels)]
    except ValueError as error:
        raise ConfigError(f"--selector: {error}") from error
    if not chosen:
        names = ", ".join(str(file) for file in files)
        raise ConfigError(f"no drill in {names}", hint="drill files end in .drill.yaml; see --selector, too")
    return chosen


def drill_files(path: Path) -> list[Path]:
    """Return the drill files that an argument means: itself, or all below a folder."""
    return sorted(path.rglob("*.drill.yaml")) if path.is_dir() else [path]


def _exit_code(results: list[DrillResult]) -> int:
    from clusterguard.drills import Verdict

    verdicts = {result.verdict for result in results}
    if Verdict.ERROR in verdicts:
        return _COULD_NOT_TELL
    return _NOT_PROVEN if Verdict.FAIL in verdicts else _PROVEN
