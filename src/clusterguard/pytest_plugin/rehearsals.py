"""Rehearsals as pytest items: one for each ``--rehearse``, which fails where the backup does not restore whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clusterguard.errors import ClusterGuardError
from clusterguard.etcd.opening import encryption_from
from clusterguard.pytest_plugin import PROPERTIES, REHEARSAL, VERDICT
from clusterguard.pytest_plugin.items import JudgedItem, shown_progress, with_hint
from clusterguard.rehearsal.rehearsal import Rehearsal
from clusterguard.rehearsal.velero import VeleroRehearsal, holds_velero_backups
from clusterguard.toolchain import from_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.model.progress import ProgressSink
    from clusterguard.rehearsal.report import RehearsalReport

__all__ = ["RehearsalItem", "rehearsal_items"]


class DoesNotRestoreError(Exception):
    """A backup that does not restore whole; pytest shows its report in place of a traceback."""

    def __init__(self, report: RehearsalReport) -> None:
        super().__init__(report.summary())
        self.report = report


class RehearsalItem(JudgedItem):
    """One backup, rehearsed."""

    def __init__(self, *, backup: str, **kwargs: Any) -> None:  # noqa: ANN401 - what pytest hands on
        super().__init__(**kwargs)
        self.backup = backup
        self.add_marker(pytest.mark.rehearsal)

    def runtest(self) -> None:
        """Rehearse the backup.

        Raises:
            DoesNotRestoreError: It does not restore, or not all of it.
        """
        try:
            with shown_progress(self.config) as progress:
                report = _rehearsal(self.config, self.backup, progress).run()
        except Exception:
            self.user_properties.append((VERDICT, "ERROR"))
            raise
        self._record(report)
        if not report.ok:
            raise DoesNotRestoreError(report)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:  # noqa: ANN401 - pytest's
        """Show a report, or what kept us from one, as people read it; anything else as pytest does."""
        if isinstance(excinfo.value, DoesNotRestoreError):
            return f"FAIL: {excinfo.value.report.to_text()}"
        if isinstance(excinfo.value, ClusterGuardError):
            return f"ERROR: {with_hint(excinfo.value)}"
        return super().repr_failure(excinfo, style=style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Tell what is rehearsed; it is no line of a file."""
        return self.config.rootpath, None, f"rehearse: {self.backup}"

    def _record(self, report: RehearsalReport) -> None:
        findings = dict.fromkeys(finding.code for finding in report.findings)
        self.user_properties += [
            (VERDICT, "PASS" if report.ok else "FAIL"),
            (f"{PROPERTIES}objects", sum(kind.backed_up for kind in report.kinds)),
            (f"{PROPERTIES}equal", sum(kind.equal for kind in report.kinds)),
            (f"{PROPERTIES}findings", ",".join(findings)),
            (f"{PROPERTIES}seconds", round(report.seconds, 3)),
        ]
        for phase in report.phases:
            name = phase.name.replace(" ", "_")
            self.user_properties.append((f"{PROPERTIES}phase.{name}_seconds", round(phase.seconds, 3)))


def rehearsal_items(session: pytest.Session) -> Iterator[RehearsalItem]:
    """Yield an item for each backup that the command line names, each once."""
    for backup in dict.fromkeys(session.config.getoption("--rehearse")):
        yield RehearsalItem.from_parent(session, name=backup, nodeid=f"{REHEARSAL}::{backup}", backup=backup)


def _rehearsal(config: pytest.Config, backup: str, progress: ProgressSink) -> Rehearsal | VeleroRehearsal:
    toolchain = from_environment(os.environ, progress=progress)
    version = config.getoption("--rehearse-kubernetes-version") or ""
    if holds_velero_backups(backup):
        return VeleroRehearsal(location=backup, kubernetes_version=version, toolchain=toolchain, progress=progress)
    identities = map(Path, config.getoption("--rehearse-identity") or ())
    passphrase = config.getoption("--rehearse-passphrase-file")
    at_rest = config.getoption("--rehearse-encryption-config")
    return Rehearsal(
        location=backup,
        encryption=encryption_from(identities, passphrase_file=Path(passphrase) if passphrase else None),
        encryption_config=Path(at_rest) if at_rest else None,
        prefix=config.getoption("--rehearse-prefix") or "/registry",
        kubernetes_version=version,
        toolchain=toolchain,
        progress=progress,
    )
