"""Which API server a rehearsal takes, and what it says of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from clusterguard.cli.main import main
from clusterguard.errors import ConfigError, ToolchainError
from clusterguard.rehearsal.rehearsal import Rehearsal
from clusterguard.rehearsal.report import Level
from clusterguard.rehearsal.versions import choose_api_server, other_version, requested_api_server
from clusterguard.toolchain import Source, Toolchain
from small_snapshot import OBJECTS, file_of, history_of

if TYPE_CHECKING:
    from pathlib import Path


def toolchain_with(folder: Path, *minors: int) -> Toolchain:
    """Return one that has API servers of these minor versions, and no other source."""
    explicit = {}
    for minor in minors:
        path = folder / f"api-server-{minor}"
        path.write_text(f"#!/bin/sh\necho Kubernetes v1.{minor}.0\n")
        path.chmod(0o755)
        explicit[f"kube-apiserver@1.{minor}"] = path
    return Toolchain(cache=folder / "cache", explicit=explicit, sources=(Source.EXPLICIT,))


@pytest.mark.parametrize(
    ("there", "ran", "chosen"),
    [
        pytest.param([33, 34, 36], "v1.34.2", "kube-apiserver@1.34", id="its own"),
        pytest.param([33, 34, 36], "v1.34.2+k3s1", "kube-apiserver@1.34", id="its own, of a distribution"),
        pytest.param([31, 36], "v1.33.0", "kube-apiserver@1.31", id="the nearest"),
        pytest.param([32, 34], "v1.33.0", "kube-apiserver@1.34", id="the newer of two that are as near"),
        pytest.param([30, 36, 37], "v1.38.1", "kube-apiserver@1.37", id="newer than all"),
        pytest.param([30, 36], "v1.28.0", "kube-apiserver@1.30", id="older than all"),
        pytest.param([30, 36, 37], "", "kube-apiserver", id="unknown"),
        pytest.param([31, 34], "", "kube-apiserver@1.34", id="unknown, and the default is not there"),
        pytest.param([], "v1.34.2", "kube-apiserver@1.34", id="none is there: its own is obtained"),
        pytest.param([], "v1.29.2", "kube-apiserver@1.30", id="none is there: the nearest is obtained"),
        pytest.param([], "", "kube-apiserver", id="none is there, unknown"),
    ],
)
def test_the_nearest_that_is_there(tmp_path: Path, there: list[int], ran: str, chosen: str) -> None:
    assert choose_api_server(toolchain_with(tmp_path, *there), ran) == chosen


@pytest.mark.parametrize(("version", "name"), [("1.34", "kube-apiserver@1.34"), ("v1.36", "kube-apiserver")])
def test_a_version_is_asked_for_by_its_minor(version: str, name: str) -> None:
    assert requested_api_server(version) == name


@pytest.mark.parametrize("version", ["1.29", "1.38", "1.34.2", "2.34", "latest", "1", " 1.34"])
def test_a_version_that_is_not_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rehearsal(location=tmp_path / "s.db", kubernetes_version=version)
    assert (caught.value.code, caught.value.fields["version"]) == ("kubernetes-version-not-available", version)
    assert caught.value.fields["available"] == [f"1.{minor}" for minor in range(30, 38)]
    monkeypatch.setattr("sys.argv", ["clusterguard", "rehearse", "s.db", "--kubernetes-version", version])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2


def test_a_version_that_cannot_be_obtained_is_an_error_and_nothing_is_started(tmp_path: Path) -> None:
    path = file_of(tmp_path, history_of(OBJECTS))
    rehearsal = Rehearsal(
        location=path, toolchain=toolchain_with(tmp_path), home=tmp_path / "home", kubernetes_version="1.34"
    )
    with pytest.raises(ToolchainError) as caught:
        rehearsal.run()
    assert caught.value.code == "no-source"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("theirs", "ours", "requested", "level"),
    [
        ("v1.34.2", "v1.34.4", False, None),  # another patch is none
        ("v1.34.2", "v1.36.3", False, Level.WARNING),
        ("v1.34.2", "v1.36.3", True, Level.NOTE),
        ("v1.29.0", "v1.30.14", False, Level.WARNING),
        ("", "v1.36.3", False, None),  # nobody can tell
        ("v1.34.2", "", False, None),  # it never came up
    ],
)
def test_another_minor_version_is_said(theirs: str, ours: str, requested: bool, level: Level | None) -> None:
    found = list(other_version(theirs, ours, requested=requested))
    assert [each.level for each in found] == ([level] if level else [])
    assert all(each.code == "other-kubernetes-version" for each in found)


def test_the_hint_offers_only_what_can_be_had() -> None:
    (offered,), (unknown,) = (other_version(v, "v1.36.3") for v in ("v1.34.2", "v1.29.0"))
    assert "--kubernetes-version 1.34" in offered.hint
    assert "--kubernetes-version" not in unknown.hint


@pytest.mark.parametrize(("theirs", "ours", "told"), [("v1.37.1", "v1.36.3", True), ("v1.34.2", "v1.36.3", False)])
def test_an_older_version_may_be_the_cause_of_errors(theirs: str, ours: str, told: bool) -> None:
    (found,) = other_version(theirs, ours)
    assert ("the older one" in found.hint) is told
