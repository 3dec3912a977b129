"""Drill files for pytest in pytest. Their runs are made up, so that no cluster is needed."""

import pytest

# pytester forgets what was imported inside of it, and PyYAML's C part cannot be imported twice.
import clusterguard.clusters
import clusterguard.etcd
import clusterguard.pytest_plugin.items
import clusterguard.pytest_plugin.rehearsals
import clusterguard.toolchain
import clusterguard.validate  # noqa: F401 - see above

CANNED = '''
from datetime import UTC, datetime

from clusterguard.drills.verdict import (
    DrillResult, Mutation, PhaseResult, RecoveryTime, StepResult, TriedDefect, Verdict,
)


def canned(runner, drill):
    """Come to the verdict that the drill's annotation names."""
    runner._settings and SETTINGS.append(runner._settings)
    words = drill.metadata.annotations.get("verdict", "PASS").split()  # of one try after the other
    TRIES[drill.id] = TRIES.get(drill.id, 0) + 1
    verdict = Verdict(words[min(TRIES[drill.id], len(words)) - 1])
    step = drill.phase("verify")[0]
    result = DrillResult(
        drill=drill.id,
        run_id="ab12cd34",
        verdict=verdict,
        reason={"PASS": "recovered", "FAIL": "not recovered", "ERROR": "etcd does not answer"}[verdict],
        hint="" if verdict is Verdict.PASS else "look at the cluster",
        started=datetime(2030, 1, 1, tzinfo=UTC),
        seconds=12.0,
        phases=(PhaseResult(name="restore", verdict=verdict, seconds=7.25),),
        steps=(StepResult(phase="verify", title=step.title, verdict=verdict, seconds=1, location=step.location),),
        rto=RecoveryTime(provision=0, restore=7.25, verify=1.5) if verdict is Verdict.PASS else None,
        rpo=0.5,
        red_after_fault=(1, 1),
        diff="" if verdict is Verdict.PASS else "--- before\\n+++ after\\n-blue\\n+red",
        suppressed={},
        diagnostics=(),
        clusters={},
        controls=(),
        mutation=None if runner._settings.mutate is None else Mutation(
            tried=tuple(
                TriedDefect(defect="config-cut", target="ConfigMap shop/web", outcome=outcome, detail="restored")
                for outcome in ("found", "found", "missed", "notApplied")
            ),
            minimum=runner._settings.mutate,
        ),
    )
    if "raises" in drill.metadata.annotations:
        raise ZeroDivisionError
    return result


SETTINGS = []
TRIES = {}
'''

DRILL = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata:
  name: {name}
  labels: {{tier: {tier}}}
  annotations: {{verdict: {verdict}}}
spec:
  description: A drill called {name}.
  clusters:
    main: {{context: nowhere}}
  backup:
  - etcdSnapshot: {{name: before}}
  fault:
  - delete: {{kind: Pod, namespace: shop, selector: app=web}}
  restore:
  - etcdRestore: {{from: before}}
  verify:
  - restored: {{}}
"""


@pytest.fixture
def drill(pytester):
    """Write a drill file whose run comes to a verdict."""

    def drill(name, verdict="PASS", tier="nightly", **replace):
        text = DRILL.format(name=name, verdict=verdict, tier=tier)
        for old, new in replace.items():
            text = text.replace(old, new)
        path = pytester.path / f"{name}.drill.yaml"
        path.write_text(text)
        return path

    return drill


@pytest.fixture
def canned(monkeypatch):
    """Make up the runs of drills in this process; return the settings that they were given."""
    space = {}
    exec(CANNED, space)  # noqa: S102 - the same text is a conftest.py where another process is needed
    monkeypatch.setattr("clusterguard.drills.runner.DrillRunner.run", space["canned"])
    for name in ("KUBECONFIG", "CLUSTERGUARD_DRILL_CLUSTER", "CLUSTERGUARD_DRILL_EVIDENCE"):
        monkeypatch.delenv(name, raising=False)
    return space["SETTINGS"]


@pytest.fixture
def canned_everywhere(pytester, monkeypatch):
    """Make up the runs of drills in other processes, too."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    pytester.makeconftest(CANNED + "\nfrom clusterguard.drills.runner import DrillRunner\nDrillRunner.run = canned\n")


@pytest.fixture(autouse=True)
def _without_hypothesis(pytester, monkeypatch):
    """Hypothesis imports all of itself at the end of each pytest run: a second for each test here."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")


@pytest.fixture
def three(drill, canned):
    """One drill of each verdict."""
    drill("green")
    drill("red", "FAIL", "weekly")
    drill("unknown", "ERROR")
