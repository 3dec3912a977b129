"""`clusterguard coverage`: what it reads, what it prints, and its exit codes."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from coverage_objects import CONFIG, NAMESPACE, claimed, etcd, found, thing, velero, with_claims

from clusterguard.cli.main import main
from clusterguard.coverage.found import Unread
from clusterguard.coverage.proofs import Proof
from clusterguard.coverage.sources import NotCounted
from clusterguard.coverage.table import coverage_of
from clusterguard.errors import ForbiddenError
from clusterguard.model.inventory import Scope

SHOP = {NAMESPACE: [thing("shop", "")], CONFIG: [thing()]}


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command with a cluster that comes to a table, or that raises."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("CLUSTERGUARD_DRILL_EVIDENCE", raising=False)

    def command(answer, *words):
        asked = {}

        def cover(_api, cluster, **given):
            asked.update(given, cluster=cluster)
            if isinstance(answer, Exception):
                raise answer
            return answer

        @contextmanager
        def opened(*_args, **_given):
            yield SimpleNamespace(api=None)

        monkeypatch.setattr("clusterguard.coverage.cover.cover", cover)
        monkeypatch.setattr("clusterguard.cli.coverage.opened", opened)
        monkeypatch.setattr("sys.argv", ["clusterguard", "coverage", "--cluster", "context:prod", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, capsys.readouterr().out, asked

    return command


COVERED = coverage_of(found(SHOP), [velero()])
UNCOVERED = coverage_of(found(SHOP), [])
UNKNOWN = coverage_of(found(SHOP, unread=(Unread("Secret", "forbidden", "shop"),)), [velero()])
UNKNOWN_AND_UNCOVERED = coverage_of(found(SHOP, unread=(Unread("Secret", "forbidden", "lab"),)), [])


@pytest.mark.parametrize(
    ("answer", "code"),
    [(COVERED, 0), (UNCOVERED, 1), (UNKNOWN, 2), (UNKNOWN_AND_UNCOVERED, 2), (ForbiddenError("no"), 2)],
)
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_the_exit_code_says_what_it_came_to(command, answer, code, words):
    assert command(answer, *words)[0] == code


def test_json_is_the_table(command):
    assert json.loads(command(UNCOVERED, "--json")[1]) == UNCOVERED.to_dict()


def test_options_arrive(command, tmp_path):
    (tmp_path / "none").mkdir()
    words = ["--ignore", "lab", "--ignore", "old", "--max-age", "36h", "--velero-namespace", "backup"]
    _, _, asked = command(COVERED, *words, "--drills", str(tmp_path / "none"), "--evidence", str(tmp_path))
    assert (asked["ignore"], asked["velero_namespace"], asked["cluster"]) == (["lab", "old"], "backup", "context:prod")
    assert asked["max_age"].total_seconds() == 36 * 3600
    assert (asked["drills"], asked["evidence"].url) == ([], f"file://{tmp_path}")


@pytest.mark.parametrize(
    "words", [("--max-age", "soon"), ("--drills", "/no/such.drill.yaml"), ("--policy", "/no/such")]
)
def test_what_cannot_be_read_is_told_before_the_cluster_is_asked(command, words):
    code, _, asked = command(COVERED, *words)
    assert (code, asked) == (2, {})


# ---- what a console shows ------------------------------------------------------------------------------------


def test_the_table_names_what_is_not_covered(command):
    kept_out = thing("secret-plan", **{"velero.io/exclude-from-backup": "true"})
    things = {**SHOP, CONFIG: [thing(), kept_out], NAMESPACE: [thing("shop", ""), thing("kube-system", "")]}
    cluster = with_claims(claimed(source="hostPath"), things=things, unread=(Unread("Secret", "forbidden", "shop"),))
    refused = [NotCounted("schedule weekly", "schedule-without-backups", "it has made no backup")]
    proof = Proof(drill="shop", at=cluster.at, scope=Scope())
    table = coverage_of(cluster, [velero()], [proof], not_counted=refused)
    _, out, _ = command(table)
    for word in ("context:prod", "UNKNOWN", "schedule nightly", "schedule weekly", "shop/secret-plan", "hostPath"):
        assert word in out
    for word in ("kube-system", "excused", "excluded-by-label", "Secret in shop", "ignored namespaces 1"):
        assert word in out


def test_what_is_covered_as_a_whole_is_counted(command):
    many = {NAMESPACE: [thing("shop", "")], CONFIG: [thing(f"c-{number}") for number in range(1000)]}
    _, out, _ = command(coverage_of(found(many), [velero(), etcd()]))
    assert "COVERED" in out
    assert "1,001/1,001" in out
    assert len(out.splitlines()) < 12
