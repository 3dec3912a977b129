from __future__ import annotations

import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import ConfigError
from clusterguard.model.support import SUPPORTED, VersionRange, parse_version
from clusterguard.toolchain.build import build_key, needed_go
from clusterguard.toolchain.programs import API_SERVERS, PROGRAMS, named
from clusterguard.toolchain.releases import asset_for, pinned_releases

numbers = st.integers(min_value=0, max_value=999)
versions = st.tuples(numbers, numbers, numbers)


def test_versions_are_read_from_what_the_programs_print():
    for said, version in (
        ("etcd Version: 3.7.3\nGit SHA: 1a2b\nGo Version: go1.26.8\n", (3, 7, 3)),
        ("etcdutl version: 3.6.8\nAPI version: 3.6\n", (3, 6, 8)),
        ("Kubernetes v1.36.3\n", (1, 36, 3)),
        ("Client Version: v1.36.3\nKustomize Version: v5.8.1\n", (1, 36, 3)),
        ("kwok version v0.8.0 go1.26.8 (linux/amd64)\n", (0, 8, 0)),
        ("kind v0.33.0 go1.26.8 linux/amd64\n", (0, 33, 0)),
        ("Version  : git\nBuild    : norev go1.26.8\n", None),
        ("", None),
    ):
        assert parse_version(said) == version, said


@given(versions)
def test_a_version_survives_being_written(version):
    assert parse_version("program v{}.{}.{}".format(*version)) == version


@given(versions, versions, versions)
def test_a_range_holds_what_lies_between_its_ends(low, high, version):
    assert (version in VersionRange(low, high)) == (low <= version < high)


def test_a_short_bound_holds_every_patch_of_its_minor():
    assert (1, 36, 0) in VersionRange((1, 36), (1, 37))
    assert (1, 37, 0) not in VersionRange((1, 36), (1, 37))


def test_an_unknown_program_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="'kube-apiservr'") as caught:
        named("kube-apiservr")
    assert caught.value.hint == "did you mean kube-apiserver?"


def test_what_is_compiled_is_a_version_that_would_be_accepted():
    for name, program in PROGRAMS.items():
        assert parse_version(f"v{program.modules.version}") in program.accepts, name


def test_there_is_an_api_server_of_every_supported_version():
    (major, oldest), (_, end) = SUPPORTED["Kubernetes"].at_least, SUPPORTED["Kubernetes"].below
    assert sorted(API_SERVERS) == [(major, minor) for minor in range(oldest, end)]
    for (major, minor), name in API_SERVERS.items():
        assert PROGRAMS[name].accepts == VersionRange((major, minor), (major, minor + 1))
        assert named(f"kube-apiserver@{major}.{minor}") is PROGRAMS[name]
        assert PROGRAMS[name].file == "kube-apiserver"


def test_all_modules_of_an_api_server_are_of_its_version():
    for name in API_SERVERS.values():
        program = PROGRAMS[name]
        modules = resources.files("clusterguard.toolchain").joinpath("modules", program.modules.name)
        staging = re.findall(
            r"^.*k8s\.io/\S+ => k8s\.io/\S+ v(\S+)$", modules.joinpath("go.mod").read_text(), re.MULTILINE
        )
        assert len(staging) > 20, name
        assert {f"1.{version[2:]}" for version in staging} == {program.modules.version}, name


def test_the_pinned_modules_have_the_version_that_the_catalogue_tells():
    for name, program in PROGRAMS.items():
        modules = resources.files("clusterguard.toolchain").joinpath("modules", program.modules.name)
        text = modules.joinpath("go.mod").read_text()
        required = dict(re.findall(r"^\s*(?:require )?(\S+) (v\S+)", text, re.MULTILINE))
        module = max((path for path in required if program.package.startswith(path)), key=len)
        assert required[module] == f"v{program.modules.version}", name
        assert modules.joinpath("go.sum").is_file(), name
        assert needed_go(program.modules) >= (1, 25, 0), name
        assert build_key(program.modules).startswith(f"{program.modules.version}-"), name


def test_pinned_releases_are_whole_and_acceptable():
    for asset in pinned_releases():
        assert re.fullmatch("[0-9a-f]{64}", asset.sha256), asset
        assert asset.url.startswith("https://"), asset
        assert asset.version in asset.url, asset
        for name in asset.programs:
            assert parse_version(asset.version) in PROGRAMS[name].accepts, asset


def test_every_program_of_the_embedded_cluster_can_be_downloaded():
    etcd, control_plane = (
        ("etcd", "etcdctl", "etcdutl"),
        ("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    )
    for name in (*etcd, *control_plane, *API_SERVERS.values(), "kwok"):
        for platform in ("linux-amd64", "linux-arm64"):
            assert asset_for(name, releases=pinned_releases(), platform=platform), (name, platform)


def test_no_checksum_is_pinned_twice():
    digests = [asset.sha256 for asset in pinned_releases()]
    assert len(digests) == len(set(digests))
