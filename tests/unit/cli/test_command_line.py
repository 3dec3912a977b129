"""Exit codes, errors in words, help: what holds for every command."""

import io
import itertools
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clusterguard import __version__
from clusterguard.clusters.base import EtcdAccess
from clusterguard.drills.events import DrillFinished, DrillStarted
from clusterguard.drills.verdict import DrillResult, Mutation, PhaseResult, RecoveryTime, TriedDefect, Verdict
from clusterguard.errors import ClusterLockedError, ClusterUnreachableError, ForbiddenError, ToolchainError
from whole_command_line import whole_command_line

ROOT = Path(__file__).parents[3]


def commands():
    """Every command and group of commands, as words."""
    waiting = [([], whole_command_line())]
    while waiting:
        words, command = waiting.pop()
        yield words
        waiting += [([*words, name], inner) for name, inner in getattr(command, "commands", {}).items()]


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(cli, option):
    for words in sorted(commands()):
        code, out, _ = cli(*words, option)
        assert (code, "Usage: clusterguard" in out) == (0, True), words
        assert len(out.split()) > 20, f"{words} does not say what it is for"


def test_the_version(cli):
    assert cli("--version") == (0, f"clusterguard {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["drill", "plan", "--bogus", "x"], ["etcd", "verify"], ["drill", "run"]]
)
def test_wrong_usage_is_no_verdict(cli, arguments):
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: clusterguard" in err


@pytest.mark.parametrize(
    ("arguments", "told", "hint"),
    [
        (["drill", "run", "/nowhere.drill.yaml"], "/nowhere.drill.yaml: no such file", ""),
        (["drill", "run", "{tmp}"], "no drill in {tmp}", "drill files end in .drill.yaml"),
        (["drill", "plan", "{tmp}"], "no drill in {tmp}", "drill files end in .drill.yaml"),
        (["drill", "run", "drills", "--selector", "a=b=c"], "--selector: invalid label selector 'a=b=c'", ""),
        (["drill", "run", "drills", "--selector", "tier=none"], "no drill in drills", "see --selector"),
        (["etcd", "save", "--store", "{tmp}"], "no etcd to save from", "endpoint"),
        (["etcd", "save", "--store", "{tmp}", "--endpoints", "http://127.0.0.1:1"], "http://127.0.0.1:1: ", "etcd"),
        (["etcd", "save", "--store", "s3://"], "no bucket given", "s3://bucket/prefix"),
        (["etcd", "verify", "x", "--store", "{tmp}"], "has no snapshot 'x'", "clusterguard etcd list"),
        (["etcd", "restore", "x", "--store", "{tmp}", "--cluster", "embedded"], " empty", "clusterguard cluster up"),
        (["etcd", "save", "--store", "{tmp}", "--cluster", "nothing"], "'nothing' is not a valid", "embedded:NAME"),
        (["etcd", "save", "--store", "{tmp}", "--endpoints", "a", "--cert", "{tmp}/no"], "no such file: {tmp}/no", ""),
        (["etcd", "save", "--store", "{tmp}", "--endpoints", "a", "--user", "root"], "no password", "--password-file"),
        (["inventory", "compare", "{tmp}/none", "--cluster", "context:x"], "{tmp}/none: no such file", ""),
        (["inventory", "capture", "{tmp}/new", "--cluster", "kubeconfig:{tmp}/none"], "no such file", "KUBECONFIG"),
        (["cluster", "down", "nothing"], "no embedded cluster 'nothing'", "clusterguard cluster list"),
        (["cluster", "up", "No_Name"], "invalid cluster name 'No_Name'", "lower-case letters"),
    ],
)  # fmt: skip
def test_errors_are_words_and_a_next_step(cli, tmp_path, monkeypatch, arguments, told, hint):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    code, out, err = cli(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert told.format(tmp=tmp_path) in err
    assert hint in err
    assert not hint or "\n  → " in err
    assert "Traceback" not in err


@pytest.mark.programs
def test_ctrl_c_has_a_code_of_its_own(cli, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("clusterguard.drills.runner.DrillRunner.run", interrupted)
    code, _, err = cli("drill", "run", ROOT / "drills")
    assert (code, "interrupted" in err, "Traceback" in err) == (130, True, False)


SECRETS = ["AGE-SECRET-KEY-1QQQQQ", "hunter2"]


@pytest.fixture
def bug(monkeypatch):
    """A command that raises what nobody expects."""

    def bug(*_, **__):
        local = "-----value of a variable-----"
        raise PermissionError(13, f"AGE-SECRET-KEY-1QQQQQ of s3://me:hunter2@bucket {len(local)}")

    monkeypatch.setenv("PASSWORD_OF_SOMETHING", "correct-horse")
    monkeypatch.setattr("clusterguard.etcd.EtcdSnapshotter.verify", bug)
    return "etcd", "verify", "before"


def test_a_bug_is_no_verdict_and_is_kept_for_its_report(cli, bug, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    code, out, err = cli(*bug, "--store", tmp_path / "store")
    (kept,) = (tmp_path / "clusterguard" / "crashes").iterdir()
    text = kept.read_text()
    assert (code, out) == (2, "")
    assert "PermissionError" in err
    assert str(kept) in err
    assert "Traceback" not in err
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "Traceback" in text
    assert "PermissionError" in text
    assert not [each for each in [*SECRETS, "correct-horse", "value of a variable"] if each in text + err]


def test_a_bug_is_told_where_nothing_can_be_kept(cli, bug, tmp_path, monkeypatch):
    (tmp_path / "clusterguard").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    code, _, err = cli(*bug, "--store", tmp_path / "store")
    assert code == 2
    assert "Traceback" in err
    assert not [secret for secret in SECRETS if secret in err]


def test_another_broken_pipe_than_ours_is_a_bug(cli, tmp_path, monkeypatch):
    """The command line library ends with 1 for any of them, and says nothing."""

    def cut_off(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("clusterguard.etcd.EtcdSnapshotter.verify", cut_off)
    code, _, err = cli("etcd", "verify", "before", "--store", tmp_path / "store")
    assert code == 2
    assert "BrokenPipeError" in err
    assert list((tmp_path / "clusterguard" / "crashes").iterdir())


# ---- drills ----------------------------------------------------------------------------------------------


def test_the_schema_is_the_published_one(cli):
    published = (ROOT / "docs/reference/drill-v1alpha1.schema.json").read_text()
    assert cli("drill", "schema") == (0, published, "")


def test_the_plan_of_a_folder(cli):
    code, out, err = cli("drill", "plan", ROOT / "drills")
    assert (code, err) == (0, "")
    for path in (ROOT / "drills").glob("*.drill.yaml"):
        assert f"drill {path.name.removesuffix('.drill.yaml')} " in out
    assert "! delete" in out


class Verdicts:
    """Gives each drill that runs the next of some verdicts."""

    def __init__(self, *words):
        self.words = iter(words)
        self.ran = []

    def run(self, drill):
        self.ran.append((drill.id, self.settings))
        return type("Result", (), {"verdict": Verdict(next(self.words))})


@pytest.fixture
def verdicts(monkeypatch):
    def verdicts(*words):
        made = Verdicts(*words)

        def runner(*, settings, on_event):
            made.settings = settings
            return made

        monkeypatch.setattr("clusterguard.drills.runner.DrillRunner", runner)
        monkeypatch.setattr("clusterguard.toolchain.Toolchain.missing", lambda *_: set())  # none is needed
        return made

    return verdicts


@pytest.mark.parametrize(
    ("words", "code"),
    [("PASS PASS", 0), ("PASS FAIL", 1), ("FAIL PASS", 1), ("ERROR PASS", 2), ("FAIL ERROR", 2), ("ERROR FAIL", 2)],
)
def test_the_exit_code_is_the_worst_verdict(cli, verdicts, words, code):
    files = [ROOT / "drills" / name for name in ("deleted-pods.drill.yaml", "deleted-namespace.drill.yaml")]
    ran = verdicts(*words.split())
    assert cli("drill", "run", *files).code == code
    assert [drill for drill, _ in ran.ran] == ["deleted-pods", "deleted-namespace"]


@pytest.mark.parametrize(("words", "minimum"), [((), 100), (("--min", "80"), 80)])
def test_attacking_drills_is_running_them_with_a_minimum(cli, verdicts, words, minimum):
    ran = verdicts("PASS")
    assert cli("drill", "mutate", ROOT / "drills" / "deleted-pods.drill.yaml", *words).code == 0
    assert [settings.mutate for _, settings in ran.ran] == [minimum]


ATTACKED = Mutation(
    tried=(
        TriedDefect(
            defect="config-cut", target="ConfigMap shop/web", outcome="found", detail="restored: 1 changed: data.page"
        ),
        TriedDefect(defect="label-dropped", target="Secret shop/web", outcome="missed", detail="restored"),
        TriedDefect(defect="port-changed", target="Service shop/web", outcome="notApplied", detail="refused"),
    ),
    minimum=100.0,
)


def attacked_result(drill, mutation=ATTACKED):
    return DrillResult(
        drill=drill,
        run_id="1a2b3c4d",
        verdict=Verdict.FAIL,
        reason="1 of 2 defects found (50 %), 1 not applied, at least 100 % asked for",
        hint="add to verify: restored",
        code="defects-missed",
        started=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        seconds=12.3456,
        phases=(PhaseResult(name="defects", verdict=Verdict.FAIL, seconds=1.5, detail=mutation.summary()),),
        steps=(),
        rto=RecoveryTime(provision=0.0, restore=1.25, verify=0.5),
        rpo=3.0,
        red_after_fault=(1, 2),
        diff="",
        suppressed={"bookkeeping": 2},
        diagnostics=(),
        clusters={"main": "embedded, pods are simulated"},
        controls=("SOC2 A1.3",),
        providers={"main": "embedded"},
        mutation=mutation,
    )


def test_json_is_the_result_of_each_drill_and_nothing_else(cli, verdicts, monkeypatch):
    class Runner:
        def __init__(self, *, settings, on_event):
            self.on_event = on_event

        def run(self, drill):
            self.on_event(DrillStarted(drill=drill.id, run_id="1a2b3c4d", description="what it is for"))
            result = attacked_result(drill.id)
            self.on_event(DrillFinished(result=result))
            return result

    verdicts()
    monkeypatch.setattr("clusterguard.drills.runner.DrillRunner", Runner)
    monkeypatch.chdir(ROOT)
    files = [f"drills/{name}.drill.yaml" for name in ("deleted-namespace", "velero-volume-in-place")]
    code, out, err = cli("drill", "mutate", *files, "--json")
    assert code == 2  # one of them needs containers
    assert out == (ROOT / "tests" / "golden" / "drill-mutate.json").read_text()
    assert "what it is for" in err
    assert "1 of 2 defects found (50 %)" in err


def test_json_tells_what_was_shown_before_a_later_drill_could_not_be_run(cli, verdicts, monkeypatch):
    class Runner:
        def __init__(self, *, settings, on_event):
            self.ran = []

        def run(self, drill):
            if self.ran:
                raise ToolchainError("velero cannot be had")
            self.ran.append(drill.id)
            return attacked_result(drill.id)

    verdicts()
    monkeypatch.setattr("clusterguard.drills.runner.DrillRunner", Runner)
    monkeypatch.chdir(ROOT)
    files = [f"drills/{name}.drill.yaml" for name in ("deleted-namespace", "deleted-pods")]
    ended = cli("drill", "run", *files, "--json")
    assert ended.code == 2
    assert [each["drill"] for each in json.loads(ended.out)] == ["deleted-namespace"]


def test_a_folder_stands_for_the_drills_in_it(cli, verdicts, monkeypatch):
    monkeypatch.setattr("clusterguard.clusters.kind.Docker.require", lambda _: None)  # on kind all of them can be run
    ran = verdicts(*itertools.repeat("PASS", 100))
    assert cli("drill", "run", ROOT / "drills", "--selector", "backup=etcd", "--cluster", "kind").code == 0
    names = {path.name.removesuffix(".drill.yaml") for path in (ROOT / "drills").glob("*.drill.yaml")}
    assert {drill for drill, _ in ran.ran} <= names
    assert len(ran.ran) >= 4


def test_a_slip_in_the_last_file_keeps_the_first_from_running(cli, verdicts, tmp_path):
    bad = tmp_path / "bad.drill.yaml"
    bad.write_text("kind: Drill\nspek: {}\n")
    ran = verdicts()
    code, _, err = cli("drill", "run", ROOT / "drills", bad)
    assert (code, ran.ran) == (2, [])
    assert f"{bad}:2:1: unknown key `spek`; did you mean `spec`?" in err


def test_what_is_decided_by_options(cli, verdicts, tmp_path):
    ran = verdicts("PASS")
    options = "--cluster context:staging --allow-context stag* --allow-context test --keep always --omit-restore"
    paths = ["--kubeconfig", tmp_path / "kube", "--evidence", tmp_path / "proof"]
    cli("drill", "run", ROOT / "drills/deleted-pods.drill.yaml", *options.split(), *paths)
    ((_, settings),) = ran.ran
    assert (settings.cluster, settings.allowed_contexts) == ("context:staging", ("stag*", "test"))
    assert (settings.kubeconfig, settings.evidence) == (tmp_path / "kube", str(tmp_path / "proof"))
    assert (settings.keep, settings.omit_restore) == ("always", True)


def test_the_environment_may_decide_too(cli, verdicts, monkeypatch):
    ran = verdicts("PASS")
    monkeypatch.setenv("CLUSTERGUARD_DRILL_CLUSTER", "context:env")
    monkeypatch.setenv("KUBECONFIG", "/kube")
    cli("drill", "run", ROOT / "drills/deleted-pods.drill.yaml")
    ((_, settings),) = ran.ran
    assert (settings.cluster, settings.kubeconfig) == ("context:env", Path("/kube"))


# ---- other nouns -----------------------------------------------------------------------------------------


def test_an_empty_store_is_told_as_such(cli, tmp_path):
    assert cli("etcd", "list", "--store", tmp_path / "[a]") == (0, f"no snapshots in {tmp_path}/[a]\n", "")
    assert json.loads(cli("etcd", "list", "--store", tmp_path, "--json").out) == []


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_foreign_object_beside_the_snapshots_is_a_warning(cli, tmp_path, options):
    (tmp_path / "notes.json").write_text('{"todo": "buy milk"}')
    code, out, err = cli("etcd", "list", "--store", tmp_path, *options)
    assert code == 0
    assert "notes.json" in err
    assert "notes.json" not in out
    assert not options or json.loads(out) == []


def test_no_clusters_are_told_as_such(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert cli("cluster", "list") == (0, "no clusters\n", "")
    assert json.loads(cli("cluster", "list", "--json").out) == []


class Given:
    """A cluster that was there before."""

    etcd = EtcdAccess(endpoints=("http://127.0.0.1:1",))
    closed = False

    def __init__(self):
        self.api = self

    def close(self):
        self.closed = True

    def server_time(self):
        raise ClusterUnreachableError("connection refused")


def test_a_cluster_that_was_looked_at_is_not_taken_down(cli, tmp_path, monkeypatch):
    """Its connections are closed; it is not left by its own `with`, which deletes what it created."""
    cluster = Given()
    monkeypatch.setattr("clusterguard.clusters.opening.open_cluster", lambda *_, **__: cluster)
    assert cli("inventory", "capture", tmp_path / "inventory", "--cluster", "embedded:mine").code == 2
    assert cluster.closed
    assert cli("etcd", "save", "--store", tmp_path, "--cluster", "embedded:mine").code == 2


def test_a_restore_asks_first(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("clusterguard.clusters.opening.open_cluster", lambda *_, **__: Given())
    monkeypatch.setattr("clusterguard.etcd.EtcdSnapshotter", Asked)
    locked = []
    monkeypatch.setattr("clusterguard.clusters.lock.lock_cluster", lambda *_, **__: Lock(locked))
    for answer in ("", "n\n"):  # nobody answers, or somebody says no, which is no verdict
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        code, out, err = cli("etcd", "restore", "before", "--store", tmp_path, "--cluster", "embedded:mine")
        assert code == 2
    assert "Everything in embedded:mine goes back to 2030-01-01 00:00:00 UTC" in err
    assert not Asked.restored
    code, out, err = cli("etcd", "restore", "before", "--store", tmp_path, "--cluster", "embedded:mine", "--yes")
    assert (code, Asked.restored, locked) == (0, True, ["taken", "released"])
    assert "restored before: revision 7, raised to 1007" in out
    assert "warning: alarm NOSPACE came back" in err


class Lock:
    def __init__(self, done):
        self.done = done
        done.append("taken")

    def release(self):
        self.done.append("released")


@pytest.mark.parametrize("error", [ClusterUnreachableError("it is not ready"), ForbiddenError("no Leases for you")])
def test_a_cluster_that_is_broken_can_be_restored_without_its_lock(cli, tmp_path, monkeypatch, error):
    def lock(*_, **__):
        raise error

    monkeypatch.setattr("clusterguard.clusters.opening.open_cluster", lambda *_, **__: Given())
    monkeypatch.setattr("clusterguard.etcd.EtcdSnapshotter", Asked)
    monkeypatch.setattr("clusterguard.clusters.lock.lock_cluster", lock)
    code, _, err = cli("etcd", "restore", "before", "--store", tmp_path, "--cluster", "embedded:mine", "--yes")
    assert code == 0
    assert f"warning: other runs are not kept out of the cluster: {error.message}" in err


def test_a_cluster_that_another_run_works_in_is_not_restored(cli, tmp_path, monkeypatch):
    def lock(*_, **__):
        raise ClusterLockedError("another run is at work", fields={"holder": "drill x"})

    Asked.restored = False
    monkeypatch.setattr("clusterguard.clusters.opening.open_cluster", lambda *_, **__: Given())
    monkeypatch.setattr("clusterguard.etcd.EtcdSnapshotter", Asked)
    monkeypatch.setattr("clusterguard.clusters.lock.lock_cluster", lock)
    code, _, err = cli("etcd", "restore", "before", "--store", tmp_path, "--cluster", "embedded:mine", "--yes")
    assert (code, Asked.restored) == (2, False)
    assert "another run is at work" in err


class Asked:
    restored = False

    def __init__(self, **_):
        pass

    def find(self, name):
        from datetime import UTC, datetime

        return type("Snapshot", (), {"taken": datetime(2030, 1, 1, tzinfo=UTC), "remarks": ()})

    def restore(self, name, target, *, disarm_alarms, watch):
        from types import SimpleNamespace

        Asked.restored = True
        watch(SimpleNamespace(name="start etcd", seconds=1))
        return SimpleNamespace(
            snapshot=SimpleNamespace(revision=7),
            revision_after=1007,
            previous="/old",
            warnings=("alarm NOSPACE came back",),
        )


def test_a_password_is_never_shown(cli, tmp_path):
    secret = tmp_path / "password"
    secret.write_text("correct-horse-battery\n")
    secret.chmod(0o600)
    code, out, err = cli(
        "etcd", "save", "--store", tmp_path, "--endpoints", "http://127.0.0.1:1", "--user", "root",
        "--password-file", secret,
    )  # fmt: skip
    assert code == 2
    assert "correct-horse" not in out + err


def test_a_password_that_others_may_read_is_refused(cli, tmp_path):
    secret = tmp_path / "password"
    secret.write_text("correct-horse-battery\n")
    secret.chmod(0o644)
    code, _, err = cli(
        "etcd", "save", "--store", tmp_path, "--endpoints", "http://127.0.0.1:1", "--user", "root",
        "--password-file", secret,
    )  # fmt: skip
    assert code == 2
    assert f"chmod 600 {secret}" in err
