"""Drill files as pytest items: one item for each drill, and for each combination of its matrix."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from clusterguard.clusters.opening import CREATED, context_of
from clusterguard.documents.values import selects
from clusterguard.drills.clusters import cluster_ref_of
from clusterguard.drills.load import load_drills
from clusterguard.drills.programs import ProgramsInTurn, require_docker_for
from clusterguard.drills.requirements import skip_reason
from clusterguard.drills.run import DEFAULT_DRILL_TIMEOUT, DrillSettings
from clusterguard.drills.runner import DrillRunner
from clusterguard.drills.verdict import DrillResult, Verdict
from clusterguard.errors import ClusterGuardError, ConfigError, InvalidDrillError
from clusterguard.model.durations import parse_duration
from clusterguard.model.progress import ProgressSink, ignore_progress
from clusterguard.pytest_plugin import PROPERTIES, SKIP_REASON, VERDICT
from clusterguard.terminal.console import console_on, progress_sink
from clusterguard.terminal.drill_view import DrillView, result_view
from clusterguard.threads import interrupt_between_locks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from contextlib import AbstractContextManager

    from clusterguard.drills.load import Drill
    from clusterguard.drills.stored import StoredSnapshot
    from clusterguard.evidence.options import EvidenceSettings

__all__ = [
    "DrillFile",
    "DrillItem",
    "DrillNotProvenError",
    "JudgedItem",
    "Session",
    "group_by_cluster",
    "settings_from",
    "shown_progress",
    "with_hint",
]

_COLUMNS = 110
_EVIDENCE = pytest.StashKey["EvidenceSettings"]()
_CLEANUP_SECONDS = 600


class DrillNotProvenError(Exception):
    """A drill that did not pass; pytest shows its result in place of a traceback."""

    def __init__(self, result: DrillResult) -> None:
        super().__init__(f"{result.verdict}: {result.reason}")
        self.result = result


class DrillFile(pytest.File):
    """One ``*.drill.yaml`` file."""

    def collect(self) -> Iterator[DrillItem]:
        """Load and check the file; what is wrong in it is an error of the collection, with its place."""
        try:
            drills = load_drills(self.path, environ=os.environ, root=self.config.rootpath)
        except InvalidDrillError as error:
            raise self.CollectError(with_hint(error)) from None
        wanted = self.config.getoption("--drill-selector") or ""
        for drill in drills:
            if selects(wanted, drill.metadata.labels):
                yield DrillItem.from_parent(self, name=drill.id, drill=drill)


class JudgedItem(pytest.Item):
    """What comes to a verdict of its own, which its properties tell: a drill, or a rehearsal."""

    def setup(self) -> None:
        """Forget the properties of an earlier attempt: plugins such as pytest-rerunfailures run one item twice."""
        self.user_properties[:] = [each for each in self.user_properties if not each[0].startswith(PROPERTIES)]


class DrillItem(JudgedItem):
    """One drill."""

    def __init__(self, *, drill: Drill, **kwargs: Any) -> None:  # noqa: ANN401 - what pytest hands on
        super().__init__(**kwargs)
        self.drill = drill
        self.lacks: Exception | None = None
        self.add_marker(pytest.mark.drill(**drill.metadata.labels))
        self.extra_keyword_matches.update(f"{key}={value}" for key, value in drill.metadata.labels.items())
        if self.config.pluginmanager.hasplugin("timeout"):
            # pytest-timeout would kill the cleanup, too. The drill has a time limit of its own, which does not.
            limit = (drill.spec.timeout or DEFAULT_DRILL_TIMEOUT) + settings_from(self.config).lock_timeout
            self.add_marker(pytest.mark.timeout(limit.total_seconds() + _CLEANUP_SECONDS))

    def runtest(self) -> None:
        """Run the drill.

        Raises:
            DrillNotProvenError: It did not pass.
            ToolchainError: A program that it needs cannot be had.
        """
        if reason := skip_reason(self.drill, default_cluster=settings_from(self.config).cluster):
            self.user_properties.append((SKIP_REASON, reason))
            pytest.skip(reason)
        if self.lacks is not None:
            self.user_properties.append((VERDICT, str(Verdict.ERROR)))
            raise self.lacks
        try:
            with self._view() as view:
                result = DrillRunner(settings=settings_from(self.config), on_event=view).run(self.drill)
        except Exception:
            self.user_properties.append((VERDICT, str(Verdict.ERROR)))
            raise
        self._record(result)
        if result.verdict is not Verdict.PASS:
            raise DrillNotProvenError(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:  # noqa: ANN401 - pytest's
        """Show a drill that did not pass as people read it; anything else as pytest does."""
        if isinstance(excinfo.value, DrillNotProvenError):
            return _as_text(excinfo.value.result, self.drill)
        if excinfo.value is self.lacks and isinstance(self.lacks, ClusterGuardError):
            return with_hint(self.lacks)
        return super().repr_failure(excinfo, style=style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Tell where the drill is written, and what it is called."""
        line = int(self.drill.location.rsplit(":", 2)[1])
        return self.path, line - 1, f"drill: {self.drill.id}"

    def _record(self, result: DrillResult) -> None:
        self.user_properties.append((VERDICT, str(result.verdict)))
        self.user_properties.append((f"{PROPERTIES}run_id", result.run_id))
        if result.rto is not None:
            self.user_properties.append((f"{PROPERTIES}rto_seconds", round(result.rto.total, 3)))
        if result.rpo is not None:
            self.user_properties.append((f"{PROPERTIES}rpo_seconds", round(result.rpo, 3)))
        if result.mutation is not None:
            score = result.mutation.score
            self.user_properties.append((f"{PROPERTIES}defects_found", result.mutation.found))
            self.user_properties.append((f"{PROPERTIES}defects_counted", result.mutation.counted))
            self.user_properties.append((f"{PROPERTIES}defects_score", "" if score is None else round(score, 1)))
        for phase in result.phases:
            self.user_properties.append((f"{PROPERTIES}phase.{phase.name}_seconds", round(phase.seconds, 3)))

    @contextmanager
    def _view(self) -> Iterator[Any]:
        """Give a view on the real terminal; workers of pytest-xdist have none."""
        if hasattr(self.config, "workerinput"):
            yield lambda _: None
            return
        with _uncaptured(self.config):
            # What explains a red drill comes with pytest's own list of failures.
            yield DrillView(console_on(sys.stdout), narrate=self.config.get_verbosity() >= 0, explain=False)


def _uncaptured(config: pytest.Config) -> AbstractContextManager[None]:
    """Let a drill write past pytest's capture, while it runs."""
    manager = config.pluginmanager.getplugin("capturemanager")
    return manager.global_and_fixture_disabled() if manager else nullcontext()


class Session:
    """The hooks that only matter once there are drills or rehearsals."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._programs: ProgramsInTurn | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Report what could not tell as an error: a failure is what pytest and JUnit call the answer "no"."""
        report = yield
        if isinstance(item, JudgedItem) and report.failed and (VERDICT, Verdict.FAIL) not in report.user_properties:
            report.when = "teardown" if report.when == "teardown" else "setup"  # pytest knows errors only of these
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Let programs be got meanwhile, and Ctrl-C end a drill without tearing a lock that its clean-up needs.

        Raises:
            pytest.UsageError: A program that a variable names will not do, or Docker is missing for kind.
        """
        with self._programs_of(session), _torn_by_no_signal():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Wait for the programs of a drill outside of its time limits."""
        if isinstance(item, DrillItem) and self._programs is not None:
            try:
                self._programs.wait_for(item.drill)
            except Exception as error:  # noqa: BLE001 - raised by the item, whose own it is
                item.lacks = error
        return (yield)

    def _programs_of(self, session: pytest.Session) -> AbstractContextManager[object]:
        items = [item for item in session.items if isinstance(item, DrillItem)]
        default = settings_from(self._config).cluster
        if not items or session.config.option.collectonly:
            return nullcontext()
        from clusterguard.toolchain import from_environment

        drills = [item.drill for item in items]
        try:
            require_docker_for(drills, default_cluster=default)
            self._programs = ProgramsInTurn(
                drills,
                default_cluster=default,
                toolchain=lambda progress: from_environment(os.environ, progress=progress),
                show=lambda: shown_progress(self._config),
            )
        except ClusterGuardError as error:
            raise pytest.UsageError(with_hint(error)) from error
        if not hasattr(self._config, "workerinput"):  # all workers of pytest-xdist must have one order
            place = {drill.id: number for number, drill in enumerate(self._programs.in_turn(drills))}
            session.items.sort(key=lambda item: place[item.drill.id] if isinstance(item, DrillItem) else -1)
        return self._programs

    def pytest_report_collectionfinish(self, items: list[pytest.Item]) -> list[str]:
        """Say what will run where, or with ``--drill-plan`` print what would be done."""
        drills = [item.drill for item in items if isinstance(item, DrillItem)]
        if not drills or hasattr(self._config, "workerinput"):
            return []
        settings = settings_from(self._config)
        if self._config.getoption("--drill-plan"):
            from clusterguard.drills.plan import plan_text

            return [plan_text(drill, default_cluster=settings.cluster) for drill in drills]
        evidence = f", evidence in {settings.evidence}" if settings.evidence else ""
        return [f"drills: {len(drills)}, on {settings.cluster} where they name no cluster{evidence}"]


@contextmanager
def _torn_by_no_signal() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield  # somebody deals with it in another way
        return
    interrupt_between_locks(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def shown_progress(config: pytest.Config) -> Iterator[ProgressSink]:
    """Give a sink that shows progress past pytest's capture; workers of pytest-xdist have nowhere to show it."""
    if hasattr(config, "workerinput"):
        yield ignore_progress
        return
    with _uncaptured(config), progress_sink(console_on(sys.stdout)) as progress:
        yield progress


def settings_from(config: pytest.Config) -> DrillSettings:
    """Return what the command line, then the environment, then the ini file decide.

    Raises:
        pytest.UsageError: A value cannot be read.
    """

    def chosen(name: str) -> str | None:
        ini = name.replace("-", "_")
        value = config.getoption(f"--drill-{name}") or os.environ.get(f"CLUSTERGUARD_DRILL_{ini.upper()}")
        return value or config.getini(f"drill_{ini}") or None

    kubeconfig = config.getoption("--drill-kubeconfig") or os.environ.get("KUBECONFIG")
    longest, lock = config.getoption("--drill-longest-wait"), config.getoption("--drill-lock-timeout")
    passphrase_file = config.getoption("--drill-evidence-passphrase-file")
    try:
        return DrillSettings(
            cluster=chosen("cluster") or "embedded",
            allowed_contexts=tuple(config.getoption("--drill-allow-context") or config.getini("drill_allow_context")),
            kubeconfig=Path(kubeconfig) if kubeconfig else None,
            node_shell=config.getoption("--drill-node-shell") or os.environ.get("CLUSTERGUARD_NODE_SHELL", ""),
            keep=config.getoption("--drill-keep") or "never",
            lock_timeout=parse_duration(lock) if lock else timedelta(0),
            omit_restore=config.getoption("--drill-omit-restore"),
            mutate=config.getoption("--drill-mutate-min") if config.getoption("--drill-mutate") else None,
            longest_wait=parse_duration(longest) if longest else None,
            **_evidence(config, chosen("evidence"), chosen("evidence-key"), passphrase_file),
            stored=_find_stored,
        )
    except (ValueError, ConfigError) as error:
        raise pytest.UsageError(str(error)) from error


def _evidence(
    config: pytest.Config, location: str | None, key: str | None, passphrase_file: str | None
) -> EvidenceSettings:
    """Return the settings of evidence; the key is opened once, which takes a while where a passphrase does it."""
    if _EVIDENCE not in config.stash:
        from clusterguard.evidence.options import evidence_settings

        config.stash[_EVIDENCE] = evidence_settings(
            location or "",
            key=Path(key) if key else None,
            passphrase_file=Path(passphrase_file) if passphrase_file else None,
            environ=os.environ,
        )
    return config.stash[_EVIDENCE]


def group_by_cluster(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Give those that work on one cluster, or on several in common, one group of pytest-xdist.

    Two workers must not break and restore the same cluster at once; clusters that a run creates are its own.
    """
    default = settings_from(config).cluster
    groups: list[tuple[set[str], list[pytest.Item]]] = []
    for item in items:
        clusters, members = _clusters_of(item, default), [item]
        if not clusters:
            continue
        for joined in [group for group in groups if group[0] & clusters]:
            groups.remove(joined)
            clusters, members = clusters | joined[0], [*joined[1], *members]
        groups.append((clusters, members))
    for clusters, members in groups:
        for item in members:
            item.add_marker(pytest.mark.xdist_group(",".join(sorted(clusters))))


def _clusters_of(item: pytest.Item, default: str) -> set[str]:
    """Return the clusters that an item works on and that are there before it, by the name they are allowed by."""
    refs = {default}
    if isinstance(item, DrillItem):
        specs = item.drill.spec.effective_clusters.values()
        refs = {cluster_ref_of(spec, item.drill, default=default) for spec in specs}
    return {context_of(ref) for ref in refs if ref not in CREATED}


def _find_stored(policy: Path, source: str, *, backup: str = "", location: str = "") -> StoredSnapshot:
    from clusterguard.policies.copies.stored import (
        PolicyBackups,  # few drills need it, and every start of pytest would pay
    )

    return PolicyBackups(environ=os.environ)(policy, source, backup=backup, location=location)


def with_hint(error: ClusterGuardError) -> str:
    """Return what an error says, and what to do."""
    return f"{error.message}\n  → {error.hint}" if error.hint else error.message


def _as_text(result: DrillResult, drill: Drill) -> str:
    """Return the result as plain text, with the lines of the steps that went wrong.

    The first line is what pytest's summary shows.
    """
    console = Console(width=_COLUMNS, highlight=False, no_color=True, force_terminal=False)
    with console.capture() as captured:
        console.print(f"{result.verdict}: {result.reason}", markup=False, soft_wrap=True)
        console.print(result_view(result))
        wrong = {step.location for step in result.steps if step.verdict is not Verdict.PASS and step.location}
        for step in drill.steps:
            if step.location in wrong:
                console.print(f"\n{step.location}\n{step.source}", markup=False, soft_wrap=True)
    return captured.get()
