"""Which versions are supported: one table, and nothing else that says otherwise."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import UnsupportedVersionError
from clusterguard.model.support import (
    ETCDUTL_BUMPS_REVISIONS,
    SUPPORTED,
    parse_version,
    require_restorable,
    require_supported,
)
from clusterguard.toolchain.programs import PROGRAMS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/support.md").read_text(encoding="utf-8")


def minors(program):
    """The range as the page tells it: the first and the last minor version, both supported."""
    found = re.search(rf"^\| {program} \| (\d+)\.(\d+) to (\d+)\.(\d+) \|", PAGE, re.MULTILINE)
    assert found, f"the page has no row for {program}"
    first_major, first, last_major, last = map(int, found.groups())
    return (first_major, first), (last_major, last)


@pytest.mark.parametrize("program", SUPPORTED)
def test_the_page_tells_the_table(program):
    supported = SUPPORTED[program]
    major, end = supported.below
    assert minors(program) == (supported.at_least, (major, end - 1))


def test_python_is_what_the_package_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (oldest,) = re.findall(r"^>=([\d.]+)$", project["requires-python"])
    named = [
        tuple(map(int, each.split(" :: ")[-1].split("."))) for each in project["classifiers"] if ":: Python ::" in each
    ]
    assert min(named) == tuple(map(int, oldest.split("."))) == SUPPORTED["Python"].at_least
    assert (max(named)[0], max(named)[1] + 1) == SUPPORTED["Python"].below


@pytest.mark.parametrize(
    ("name", "program"), [("etcd", "etcd"), ("kube-apiserver", "Kubernetes"), ("velero", "Velero")]
)
def test_what_the_toolchain_starts_is_supported(name, program):
    assert parse_version(PROGRAMS[name].modules.version) in SUPPORTED[program]
    assert PROGRAMS[name].accepts.at_least >= SUPPORTED[program].at_least


def test_the_etcdutl_of_the_toolchain_raises_revisions():
    assert PROGRAMS["etcdutl"].accepts.at_least >= ETCDUTL_BUMPS_REVISIONS[:2]


@given(
    version=st.tuples(st.integers(0, 5), st.integers(0, 60), st.integers(0, 99)),
    program=st.sampled_from(list(SUPPORTED)),
)
def test_exactly_what_is_in_the_table_is_let_through(version, program):
    text = "v" + ".".join(map(str, version))
    try:
        require_supported(program, text, where="here")
    except UnsupportedVersionError as error:
        refused = error
    else:
        refused = None
    assert (refused is None) == (version in SUPPORTED[program])
    if refused:
        assert refused.code == "unsupported-version"
        assert refused.fields == {"program": program, "version": text, "supported": str(SUPPORTED[program])}


def test_where_nothing_is_changed_only_what_is_too_old_is_refused():
    require_supported("etcd", "3.9.0", where="here", reads_only=True)
    with pytest.raises(UnsupportedVersionError):
        require_supported("etcd", "3.3.27", where="here", reads_only=True)


def test_what_could_not_be_asked_is_not_refused_and_what_makes_no_sense_is():
    require_supported("etcd", "", where="here")
    with pytest.raises(UnsupportedVersionError):
        require_supported("Velero", "main", where="here", reads_only=True)


@pytest.mark.parametrize("version", ["v1.34.4-eks-3025e55", "v1.33.1+k3s1", "v1.35.0-gke.1234000", "v1.36.3"])
def test_the_versions_of_providers_are_understood(version):
    require_supported("Kubernetes", version, where="here")


@pytest.mark.parametrize(
    ("saved_from", "storage", "live", "starts"),
    [
        ("3.6.5", "3.6.0", "3.6.16", True),
        ("3.6.5", "3.6.0", "3.7.3", True),
        ("3.5.35", None, "3.7.3", True),
        ("3.4.13", None, "3.5.35", True),
        ("3.7.3", "3.7.0", "3.6.16", False),
        ("3.7.3", "3.6.0", "3.6.16", True),  # a downgrade was under way
        ("3.6.16", None, "3.5.35", True),  # likewise
        ("3.6.5", "3.6.0", "3.5.35", False),
        ("3.5.35", "3.7.0", "3.5.35", True),  # its file keeps a field from before a downgrade, which 3.5 does not read
        ("3.5.35", "3.7.0", "3.6.16", False),
        ("3.5.35", None, "3.4.13", False),
        ("", "3.7.0", "3.6.16", False),
        ("3.7.3", "3.7.0", "", True),
    ],
)
def test_an_etcd_is_given_no_newer_storage_than_its_own(saved_from, storage, live, starts):
    if starts:
        require_restorable(saved_from, storage, live=live, where="node-1")
        return
    with pytest.raises(UnsupportedVersionError) as raised:
        require_restorable(saved_from, storage, live=live, where="node-1")
    assert raised.value.fields["version"] == live
