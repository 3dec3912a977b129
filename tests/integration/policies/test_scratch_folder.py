"""Where databases on their way lie, and that a kill leaves nothing: real processes and etcd, encrypted copies."""

from __future__ import annotations

import random
import signal
import subprocess
from contextlib import suppress

import pytest

pytestmark = pytest.mark.programs


def names_in(folder):
    return [str(path) for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def temporary(nightly, keys, monkeypatch):
    """An encrypted policy in two folders whose runs have a temporary folder of their own; give that folder."""
    folder = nightly.folder / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(nightly.folder / "state"))
    nightly.write(
        locations=[{"name": "disk", "url": "./disk"}, {"name": "nas", "url": "./nas"}],
        encryption={"recipientsFile": str(keys / "recipients.txt"), "identityFile": str(keys / "identity.txt")},
        verification={"every": "1ms"},
        retention={"last": 3},
    )
    return folder


KILLED = {
    "save": ["run", "--step", "backup"],
    "verify": ["run", "--step", "verify"],
    "fetch": ["policy", "fetch"],
    "all": ["run"],
}


@pytest.mark.parametrize("count", [3, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
@pytest.mark.parametrize("words", KILLED.values(), ids=KILLED)
def test_killed_at_any_moment_nothing_is_left_below_the_temporary_folder(nightly, temporary, request, words, count):
    seed = random.randrange(1 << 32)  # noqa: S311 - moments, not secrets
    request.node.add_report_section("call", "seed", str(seed))
    moments = random.Random(seed)  # noqa: S311
    nightly.run("--step", "backup")
    command, *options = words
    fetching = command == "policy"
    for number in range(count):
        argv = (
            [command, *options, str(nightly.file), "etcd", "--to", f"./fetched-{number}"]
            if fetching
            else [command, str(nightly.file), *options]
        )
        process = nightly.start(*argv)
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.3, 1.6))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert names_in(temporary) == []
    assert nightly.report()["outcome"] in {"ok", "warning"}
    assert names_in(temporary) == []
    assert names_in(nightly.folder / "state") == []


def test_a_folder_that_is_named_is_the_only_one_that_is_used(nightly, temporary):
    (nightly.folder / "large").mkdir()
    nightly.write(scratch="./nowhere")
    report = nightly.report(code=2)
    assert "nowhere" in next(step for step in report["steps"] if step["verb"] == "backup")["detail"]
    assert nightly.files() == []
    # The option comes before the policy, and the policy before the environment.
    assert nightly.report("--scratch", "large")["outcome"] == "ok"
    nightly.write(scratch="./large")
    assert nightly.report()["outcome"] == "ok"
    nightly.report("--scratch", "nowhere", code=2)


def test_no_room_is_no_damage(nightly, temporary, monkeypatch):
    assert nightly.report()["outcome"] == "ok"
    before = nightly.files()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10_000}))
    report = nightly.report("--step", "verify")
    assert {step["code"] for step in report["steps"] if step["verb"] == "verify"} == {"copy-unread"}
    report = nightly.report("--step", "backup", code=2)
    assert {step["code"] for step in report["steps"] if step["verb"] == "backup"} == {"scratch-full"}
    assert nightly.files() == before
    monkeypatch.undo()  # of the current folder, too
    nightly.call("policy", "fetch", str(nightly.file), "etcd", "--to", str(nightly.folder / "fetched"))
