"""``clusterguard status``, ``metrics`` and ``audit``, on folders that hold what runs leave there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import typer
from typer.testing import CliRunner
from watched import NOW, a_policy, catalog, entry, proof_of, run_of

from clusterguard.cli import audit, metrics, status
from clusterguard.errors import ConfigError, StoreUnavailableError
from clusterguard.policies.copies.locations import StorageLocation
from clusterguard.policies.policy import Location
from clusterguard.policies.watching.audit import AuditTrail
from clusterguard.policies.watching.chain import AuditEvent
from clusterguard.policies.watching.watch import PolicyWatch
from clusterguard.stores import LocalStore, MemoryStore

app = typer.Typer()
app.command("status")(status.status)
app.command("metrics")(metrics.metrics)
app.add_typer(audit.app)

POLICY = """\
apiVersion: clusterguard.dev/v1alpha1
kind: BackupPolicy
metadata:
  name: prod
spec:
  sources:
    - name: etcd
      etcd: {endpoints: [https://127.0.0.1:2379]}
  schedule: {cron: "0 * * * *"}
  locations:
    - {name: near, url: ./near}
    - {name: far, url: ./far}
  copies: 2
"""


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def policy(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return file


def root(policy, location):
    return LocalStore(policy.parent / location / "prod")


ENDED = datetime.now(UTC) - timedelta(minutes=1)  # one moment: names have seconds, and all copies one name


def fill(policy, location, **changes):
    """Leave what a run leaves that ended a minute ago."""
    each = entry(ENDED, verified=ENDED, sha256="", **changes)
    store = root(policy, location)
    with store.put(f"etcd/{each.name}.db") as writer:
        writer.write(b"x" * 1000)
    record = {
        "kind": "VeleroBackup", "format": 1, "name": each.name, "source": "etcd", "policy": "prod", "run": "r1",
        "created": ENDED.isoformat(), "sealed": False, "objects": {}, "plain": {},
    }  # fmt: skip
    with store.put(f"etcd/{each.name}.json") as writer:
        writer.write(json.dumps(record).encode())
    known = catalog(location, each, runs=(run_of(at=ENDED),), proofs=(proof_of(at=ENDED),), updated=ENDED)
    with store.put(".clusterguard/catalog.json", overwrite=True) as writer:
        writer.write(known.to_json())


@pytest.fixture
def kept(policy):
    for location in ("near", "far"):
        fill(policy, location)
    return policy


# ---- status --------------------------------------------------------------------------------------------------


def test_a_policy_that_is_kept_ends_well(kept):
    done = run("status", kept)
    assert "prod  ✓ PROTECTED" in done.output
    assert done.exit_code == 0


def test_a_policy_that_never_ran_does_not(policy):
    done = run("status", policy)
    assert "prod  ✗ NOT PROTECTED" in done.output
    assert done.exit_code == 1


def test_at_risk_is_no_success_unless_it_is_allowed(kept):
    for file in (kept.parent / "far" / "prod" / "etcd").iterdir():
        file.unlink()
    assert (run("status", kept).exit_code, run("status", kept, "--allow-at-risk").exit_code) == (1, 0)


def test_not_protected_is_not_allowed_either(policy):
    assert run("status", policy, "--allow-at-risk").exit_code == 1


def test_where_no_location_can_be_read_the_answer_is_not_no(kept, tmp_path, monkeypatch):
    """The backups may be as they should be; nobody can tell."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    away = tmp_path / "away.yaml"
    nobody = '"s3://bucket?region=eu&endpoint=http://127.0.0.1:1"'
    away.write_text(POLICY.replace("./near", nobody).replace("./far", nobody.replace("bucket", "other")))
    assert run("status", away, "--within", "1").exit_code == 2
    assert run("status", kept, away, "--within", "1").exit_code == 2
    away.write_text(POLICY.replace("./near", nobody))
    assert run("status", away, "--within", "1").exit_code == 1  # one can be read, and lacks what it should have


def test_one_bad_policy_among_good_ones_is_told(kept, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(POLICY.replace("name: prod", "name: staging"))
    done = run("status", kept, other)
    assert done.exit_code == 1
    assert "prod  ✓ PROTECTED" in done.output
    assert "staging  ✗ NOT PROTECTED" in done.output


def test_as_json(kept):
    done = run("status", kept, "--json")
    (document,) = json.loads(done.output)
    assert (document["policy"], document["verdict"]) == ("prod", "protected")
    assert [each["name"] for each in document["locations"]] == ["near", "far"]


def test_as_metrics(kept):
    done = run("status", kept, "--metrics")
    assert 'clusterguard_verified_copies{policy="prod",source="etcd"} 2.0' in done.output


def test_as_a_page(kept, tmp_path):
    run("status", kept, "--html", tmp_path / "status.html")
    assert "prod: protected" in (tmp_path / "status.html").read_text()


def test_not_as_everything_at_once(kept):
    assert run("status", kept, "--json", "--metrics").exit_code == 2


@pytest.fixture
def covered(tmp_path):
    """What ``coverage --json`` wrote three days ago."""
    document = {
        **{key: [] for key in ("sources", "notCounted", "kinds", "definitions", "volumes", "unread")},
        "format": 1,
        "cluster": "context:prod",
        "at": (datetime.now(UTC) - timedelta(days=3)).isoformat(),
        "verdict": "uncovered",
        "namespaces": [{"name": "shop", "state": "unprotected", "objects": 7, "protected": 0}],
    }
    (tmp_path / "coverage.json").write_text(json.dumps(document))
    return tmp_path / "coverage.json"


def test_coverage_is_shown_with_its_age_and_changes_no_verdict(kept, covered, tmp_path):
    done = run("status", kept, "--coverage", covered, "--html", tmp_path / "status.html")
    assert done.exit_code == 0
    assert "context:prod  ✗ NOT ALL COVERED  3 days ago" in done.output
    page = (tmp_path / "status.html").read_text()
    assert page.index("prod: protected") < page.index("Coverage of context:prod") < page.index("0 of 7")


def test_coverage_that_cannot_be_read_is_told_before_anything_is_asked(kept, covered):
    covered.write_text("")
    assert isinstance(run("status", kept, "--coverage", covered).exception, ConfigError)


def test_coverage_has_no_place_in_what_programs_read(kept, covered):
    assert run("status", kept, "--json", "--coverage", covered).exit_code == 2


def test_a_policy_that_cannot_be_read_is_an_error(tmp_path):
    done = run("status", tmp_path / "none.yaml")
    assert isinstance(done.exception, ConfigError)


# ---- a watch that does not wait for ever ---------------------------------------------------------------------


class Hanging(MemoryStore):
    def __init__(self):
        super().__init__()
        self.go_on, self.asked = threading.Event(), 0

    def get(self, key):
        self.asked += 1
        self.go_on.wait(20)
        return super().get(key)


@dataclass
class Watched:
    watch: PolicyWatch
    far: Hanging


@pytest.fixture
def hanging():
    far = Hanging()
    locations = [
        StorageLocation(policy="prod", location=Location(name=name, url="memory:"), root=store)
        for name, store in (("near", MemoryStore()), ("far", far))
    ]
    yield Watched(PolicyWatch(a_policy(), locations, within_seconds=0.3, now=lambda: NOW), far)
    far.go_on.set()


def test_a_location_that_hangs_is_down_and_the_others_are_not(hanging):
    near, far = hanging.watch.status().locations  # the far one never answers, so that this ends is the proof
    assert near.reachable
    assert far.error == "it did not answer within 0.3 s"


def test_a_location_that_hangs_is_not_asked_again_before_it_answers(hanging):
    for _ in range(3):
        hanging.watch.status()
    assert hanging.far.asked == 1


def test_a_location_that_comes_back_is_up_again(hanging):
    hanging.watch.status()
    hanging.far.go_on.set()
    for _ in range(3):
        found = hanging.watch.status().locations[1]
    assert found.reachable


def test_whatever_a_store_raises_is_told():
    class Broken(MemoryStore):
        def get(self, key):
            raise RuntimeError("what is this")

    class Down(MemoryStore):
        def get(self, key):
            raise StoreUnavailableError("no route", hint="ask")

    locations = [
        StorageLocation(policy="prod", location=Location(name=name, url="memory:"), root=store)
        for name, store in (("near", Broken()), ("far", Down()))
    ]
    near, far = PolicyWatch(a_policy(), locations, now=lambda: NOW).status().locations
    assert near.error == "looking at it failed: RuntimeError: what is this"
    assert (far.error, far.hint) == ("no route", "ask")


# ---- metrics -------------------------------------------------------------------------------------------------

SERVE = "import sys, typer; from clusterguard.cli.metrics import metrics; sys.argv[0] = 'metrics'; typer.run(metrics)"


def test_metrics_are_served_until_it_is_told_to_end(kept):
    command = [sys.executable, "-c", SERVE, str(kept), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            line = server.stderr.readline()
            url = line.removeprefix("serving ").strip()
            with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - our own server
                text = answer.read().decode()
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0
        finally:
            server.kill()
    assert 'clusterguard_protection{policy="prod",verdict="protected"} 1.0' in text


# ---- audit ---------------------------------------------------------------------------------------------------


def event(run="r1", number=0, **changes):
    settings = {
        "time": NOW + timedelta(hours=number), "actor": "root", "host": "cp-1", "policy": "prod", "verb": "backup",
        "outcome": "ok", "source": "etcd", "backup": f"b{number}",
    }  # fmt: skip
    return AuditEvent(run=run, **{**settings, **changes})


@pytest.fixture
def trails(policy):
    """Two trails of three runs."""
    for location in ("near", "far"):
        trail = AuditTrail(root(policy, location))
        for number in range(3):
            trail.append([event(f"r{number}", number)], run=f"r{number}")
    return policy


def segment(policy, location, number):
    return policy.parent / location / "prod" / ".clusterguard" / "audit" / f"{number:012d}.jsonl"


def test_whole_trails_are_intact(trails):
    done = run("audit", "verify", trails)
    assert done.exit_code == 0
    assert done.output.count("intact: 3 events in 3 segments, head ") == 2


def test_a_changed_trail_is_broken_and_says_where(trails):
    file = segment(trails, "far", 2)
    file.write_bytes(file.read_bytes().replace(b'"ok"', b'"no"'))
    done = run("audit", "verify", trails)
    assert done.exit_code == 1
    assert "near: intact" in done.output
    assert "far: BROKEN" in done.output
    assert ".clusterguard/audit/000000000002.jsonl:1: changed" in done.output


def test_only_one_location_can_be_asked(trails):
    segment(trails, "far", 2).unlink()
    assert run("audit", "verify", trails, "--location", "near").exit_code == 0
    assert run("audit", "verify", trails, "--location", "far").exit_code == 1


def test_a_cut_tail_is_found_by_a_head_that_was_kept(trails):
    head = AuditTrail(root(trails, "far")).head()
    assert run("audit", "verify", trails, "--head", head).exit_code == 0
    for location in ("near", "far"):
        segment(trails, location, 3).unlink()
    assert run("audit", "verify", trails).exit_code == 0
    done = run("audit", "verify", trails, "--head", head)
    assert done.exit_code == 1
    assert "head not found" in done.output


def test_a_cut_tail_is_found_by_what_the_catalog_remembers(trails):
    with root(trails, "far").put(".clusterguard/catalog.json", overwrite=True) as writer:
        writer.write(catalog("far", audit_head=AuditTrail(root(trails, "far")).head()).to_json())
    assert run("audit", "verify", trails).exit_code == 0
    segment(trails, "far", 3).unlink()
    done = run("audit", "verify", trails)
    assert done.exit_code == 1
    assert "is not in the trail: it was cut off" in done.output


def test_runs_that_one_location_missed_are_told_and_break_nothing(trails):
    AuditTrail(root(trails, "near")).append([event("r9")], run="r9")
    done = run("audit", "verify", trails)
    assert done.exit_code == 0
    assert "1 runs of other locations' trails are not there: r9" in done.output


def test_a_trail_that_cannot_be_read_leaves_it_open(trails):
    (trails.parent / "far" / "prod" / ".clusterguard" / "audit" / "x").symlink_to("/nowhere")
    segment(trails, "far", 2).unlink()
    segment(trails, "far", 2).mkdir()
    folder = trails.parent / "far" / "prod"
    folder.rename(trails.parent / "far" / "elsewhere")
    folder.symlink_to(trails.parent / "far" / "elsewhere")
    done = run("audit", "verify", trails)
    assert done.exit_code == 2
    assert "far: cannot be read: " in done.output


def test_as_json_it_has_everything(trails):
    segment(trails, "far", 2).unlink()
    near, far = json.loads(run("audit", "verify", trails, "--json").output)
    assert (near["ok"], near["broken"], near["lines"]) == (True, False, 3)
    assert (far["ok"], far["broken"], far["findings"][0]["problem"]) == (False, True, "missing segment")
    assert far["missingRuns"] == ["r1"]


def test_events_are_shown_in_their_order(trails):
    lines = run("audit", "show", trails).output.splitlines()
    assert lines[0] == "2026-11-22 08:00:00  root@cp-1  backup etcd/b0 ok"
    assert len(lines) == 3


def test_a_location_without_a_trail_is_passed_over(trails):
    for number in (1, 2, 3):
        segment(trails, "near", number).unlink()
    assert len(run("audit", "show", trails).output.splitlines()) == 3


def test_events_since_a_moment(trails):
    lines = run("audit", "show", trails, "--since", "2026-11-22T09:30Z").output.splitlines()
    assert [line.split()[-2] for line in lines] == ["etcd/b2"]
    assert len(run("audit", "show", trails, "--since", "2026-11-22").output.splitlines()) == 3


def test_events_as_json_lines(trails):
    first = json.loads(run("audit", "show", trails, "--json").output.splitlines()[0])
    assert (first["verb"], first["backup"], first["time"]) == ("backup", "b0", "2026-11-22T08:00:00Z")


def test_a_moment_that_is_none_is_refused(trails):
    assert isinstance(run("audit", "show", trails, "--since", "yesterday").exception, ConfigError)


def test_a_location_that_there_is_not_is_refused(trails):
    done = run("audit", "verify", trails, "--location", "moon")
    assert isinstance(done.exception, ConfigError)
    assert done.exception.hint == "it has near, far"


def test_the_working_directory_is_not_touched(trails, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert run("status", trails).exit_code == 1
    assert list(elsewhere.iterdir()) == []
