"""Coverage in the status: what was written by ``coverage --json`` is read, told with its age, and shown on the page."""

import io
import json
from datetime import timedelta

import pytest
from coverage_objects import CONFIG, NAMESPACE, NOW, claimed, etcd, found, thing, velero, with_claims
from rich.console import Console

from clusterguard.coverage.found import Unread
from clusterguard.coverage.page import render_coverage
from clusterguard.coverage.proofs import Proof
from clusterguard.coverage.recorded import read_coverage
from clusterguard.coverage.sources import NotCounted
from clusterguard.coverage.table import coverage_of
from clusterguard.errors import ConfigError
from clusterguard.model.inventory import Scope
from clusterguard.terminal.coverage_view import coverage_line
from html_page import Page

EVIL = "<script>alert('x')</script>"
HOUR = timedelta(hours=1)


def a_table(**changes):
    """One of everything that a table can say."""
    kept_out = thing("secret-plan", **{"velero.io/exclude-from-backup": "true"})
    things = {CONFIG: [thing(), kept_out], NAMESPACE: [thing("shop", ""), thing("kube-system", "")]}
    cluster = with_claims(claimed(source="hostPath"), things=things, **changes)
    refused = [NotCounted("schedule weekly", "schedule-without-backups", "it has made no backup")]
    proof = Proof(drill="shop", at=cluster.at, scope=Scope())
    return coverage_of(cluster, [velero(), etcd()], [proof], not_counted=refused)


COVERED = coverage_of(found({CONFIG: [thing()]}), [velero()])


@pytest.fixture
def recorded(tmp_path):
    """Write a table as the command does, and read it."""

    def recorded(table):
        file = tmp_path / "coverage.json"
        file.write_text(json.dumps(table.to_dict()))
        return read_coverage(file)

    return recorded


def line(coverage, now):
    console = Console(file=io.StringIO(), width=200, highlight=False)
    console.print(coverage_line(coverage, now))
    return console.file.getvalue()


def test_what_was_written_is_what_is_read(recorded):
    table = a_table()
    read = recorded(table)
    assert (read.cluster, read.at, read.verdict) == (table.cluster, table.at, "uncovered")
    assert [(each.name, each.state, each.proven_at) for each in read.namespaces] == [
        (each.name, each.state, each.proven_at) for each in table.namespaces
    ]
    assert [(each.name, each.reason) for each in read.volumes] == [(each.name, each.reason) for each in table.volumes]
    assert read.not_counted == table.not_counted
    assert [each.taken for each in read.sources] == [each.taken for each in table.sources]


def test_a_later_release_may_say_more(tmp_path):
    file = tmp_path / "coverage.json"
    file.write_text(json.dumps({**COVERED.to_dict(), "colour": "blue"}))
    assert read_coverage(file).verdict == "covered"


def _without(key):
    document = COVERED.to_dict()
    del document[key]
    return json.dumps(document)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "NOT ALL COVERED",
        json.dumps(COVERED.to_dict())[:-30],
        json.dumps({**COVERED.to_dict(), "format": 2}),
        json.dumps({**COVERED.to_dict(), "at": "2030-01-02T12:00:00"}),
        json.dumps({**COVERED.to_dict(), "verdict": "fine"}),
        _without("namespaces"),
    ],
)
def test_anything_else_is_told_and_not_shown(tmp_path, text):
    file = tmp_path / "coverage.json"
    file.write_text(text)
    with pytest.raises(ConfigError):
        read_coverage(file)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError):
        read_coverage(tmp_path / "none.json")


# ---- its age -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "tone", "warned"),
    [(HOUR, "protected", False), (25 * HOUR, "could-not-tell", True), (-HOUR, "could-not-tell", True)],
)
def test_what_is_old_is_not_green(recorded, age, tone, warned):
    read = recorded(COVERED)
    now = NOW + age
    page = Page(render_coverage(read, now=now))
    assert ("div", "class", f"verdict {tone}") in page.attributes
    assert (read.is_current(now), ("span", "class", "warn") in page.attributes) == (not warned, warned)
    assert ("✓" in line(read, now)) is not warned


def test_screen_and_page_say_how_old_it_is(recorded):
    read = recorded(COVERED)
    for text in (line(read, NOW + 75 * HOUR), Page(render_coverage(read, now=NOW + 75 * HOUR)).text):
        assert "3 days ago" in text


def test_ages_count_to_the_page_and_not_to_the_look(recorded):
    read = recorded(a_table())
    assert "2 days old" in Page(render_coverage(read, now=NOW + 48 * HOUR)).text  # the backup was 10 h old then


# ---- what it says --------------------------------------------------------------------------------------------


def test_the_page_says_what_is_not_covered_and_why(recorded):
    page = Page(render_coverage(recorded(a_table(unread=(Unread("Secret", "forbidden", "shop"),))), now=NOW + HOUR))
    assert (page.open, page.torn) == ([], [])
    for words in (
        "Coverage of context:prod",
        "unknown, 60 min ago",
        "Secret in shop : forbidden",
        "schedule weekly does not count: it has made no backup",
        "shop/data",
        "file-system backup leaves volumes of the type hostPath out",
        "kube-system",
    ):
        assert words in page.text


def test_the_line_counts_what_is_not_covered(recorded):
    assert line(recorded(a_table()), NOW + HOUR) == (
        "coverage of context:prod  ✗ NOT ALL COVERED  60 min ago; not covered: volumes 1\n"
    )
    nothing = coverage_of(found({CONFIG: [thing()]}), [])
    assert "not covered: namespaces 1, kinds 2\n" in line(recorded(nothing), NOW)


def test_whatever_is_called_like_code_is_text(recorded):
    refused = [NotCounted(EVIL, EVIL, EVIL)]
    cluster = found({CONFIG: [thing()], NAMESPACE: [thing(EVIL, "")]}, unread=(Unread(EVIL, EVIL, EVIL),))
    text = render_coverage(recorded(coverage_of(cluster, [velero(EVIL)], not_counted=refused)), now=NOW)
    assert "<script" not in text
    assert Page(text).text.count(EVIL) >= 7


def test_long_tables_end_and_say_so(recorded):
    many = {NAMESPACE: [thing(f"n-{number}", "") for number in range(300)]}
    page = Page(render_coverage(recorded(coverage_of(found(many), [])), now=NOW))
    assert page.tags.count("tr") < 250
    assert "and 100 more" in page.text
