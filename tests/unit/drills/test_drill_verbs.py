"""Verbs that other distributions add, by entry points that are found as installed ones are."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[3] / "docs/reference/drill-files.md"
PAUSE = REFERENCE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
LOOK = """
    import json, sys
    from pathlib import Path
    from types import SimpleNamespace
    from clusterguard.drills import load_drill
    from clusterguard.drills.plan import plan_lines
    from clusterguard.drills.schema import drill_schema
    from clusterguard.drills.steps.base import StepContext
    drill = load_drill(Path(sys.argv[1]))
    step = next(step for step in drill.steps if step.verb == "pause")
    lines = [line for line in plan_lines(drill) if line.location == step.location]
    print(json.dumps({
        "plan": [(line.text, line.cluster) for line in lines],
        "done": step.action.perform(StepContext(None, step)),
        "keys": list(drill_schema()["$defs"]["Pause"]["properties"]),
        "one": {"required": ["pause"]} in drill_schema()["$defs"]["FaultStep"]["oneOf"],
    }))
"""


@pytest.fixture
def other(tmp_path):
    """Make a distribution with a module and an entry point, and run Python where it is installed."""

    def other(module, entry_point, code, *args):
        site = tmp_path / "site"
        metadata = site / "other_verbs-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other-verbs\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[clusterguard.steps]\n{entry_point}\n")
        (site / "other_verbs.py").write_text(textwrap.dedent(module))
        return subprocess.run(
            [sys.executable, *(["-c", textwrap.dedent(code)] if code else ["-m", "clusterguard"]), *args],
            env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )

    return other


def test_a_verb_of_another_distribution_is_loaded_planned_published_and_performed(other, write, minimal):
    path = write(minimal.replace("  fault:\n", "  fault:\n  - pause: {seconds: 90s}\n"))
    done = other(PAUSE, "pause = other_verbs:Pause", LOOK, path)
    assert json.loads(done.stdout or "{}") == {
        "plan": [["pause for 90 s", ""]],
        "done": "paused in fault",
        "keys": ["seconds"],
        "one": True,
    }, done.stderr


def test_its_mistakes_are_told_at_their_place(other, write, minimal):
    path = write(minimal.replace("  verify:\n", "  verify:\n  - pause: {seconds: 90s}\n"))
    done = other(PAUSE, "pause = other_verbs:Pause", "", "drill", "plan", path)
    assert done.returncode == 2
    assert f"{path}:21:5: spec.verify[0]: `pause` is an action of fault, not of verify" in done.stderr


@pytest.mark.parametrize(
    ("module", "entry_point", "reason"),
    [
        ("import no_such_module", "pause = other_verbs:Pause", "ModuleNotFoundError"),
        ("Pause = 3", "pause = other_verbs:Pause", "Action"),
        (PAUSE.replace("class Pause", "class Delete"), "delete = other_verbs:Delete", "`delete` already"),
    ],
)
def test_a_verb_that_cannot_be_used_is_named_with_its_package(other, write, minimal, module, entry_point, reason):
    done = other(module, entry_point, "", "drill", "plan", write(minimal))
    assert done.returncode == 2
    for part in (f"entry point {entry_point}", reason, "other-verbs"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_for_pytest_it_is_a_usage_error(other, write, minimal):
    path = write(minimal)
    code = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = other("Pause = 3", "pause = other_verbs:Pause", code, "-p", "no:cacheprovider", path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "entry point pause = other_verbs:Pause" in done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr
