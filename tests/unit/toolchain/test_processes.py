"""Several processes, and processes that die: what a test inside one process cannot show."""

from __future__ import annotations

import hashlib
import os
import selectors
import signal
import subprocess
import sys
import time

import pytest

from .conftest import etcd_script, release_of_etcd, script, times_built

INSTALL = """
import sys
from pathlib import Path
from clusterguard.toolchain import Toolchain, Source
from clusterguard.toolchain.releases import Asset
cache, path, mirror, url, sha256, platform = sys.argv[1:]
members = {name: f"etcd-v3.7.3-linux/{name}" for name in ("etcd", "etcdctl", "etcdutl")}
asset = Asset(url=url, sha256=sha256, version="3.7.3", platform=platform, programs=members)
toolchain = Toolchain(
    cache=Path(cache), path=path, mirror=mirror or None, pinned=[asset] if mirror else [],
    progress=lambda moment: print(moment.task, moment.note, flush=True),
)
print("ready", flush=True)
print(toolchain.ensure("etcd", "etcdctl")["etcd"].read_text())
"""


@pytest.fixture
def install(tmp_path, fake_go):
    """Start an installing process; what it prints comes through its stdout."""
    started = []

    def start(*, site=None, asset=None):
        arguments = [
            str(tmp_path / "cache"),
            os.pathsep.join([str(fake_go), "/usr/bin", "/bin"]),
            *([site.address, asset.url, asset.sha256, asset.platform] if site else ["", "", "", ""]),
        ]
        process = subprocess.Popen([sys.executable, "-c", INSTALL, *arguments], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def everything_said_by(process):
    """Return its output after "ready"; communicate() with a time limit would lose what came in the same piece."""
    said = process.stdout.read()
    process.wait(30)
    return said


def test_two_at_once_build_once_and_the_second_says_that_it_waits(install, fake_go):
    held = fake_go / "held"
    held.touch()
    both = [install(), install()]
    waiting = "another clusterguard process is installing it; waiting"
    # One of them says so, whichever it is, and only then may the other end.
    ready = [False, False]
    said = ["", ""]
    with selectors.DefaultSelector() as streams:
        for number, process in enumerate(both):
            streams.register(process.stdout, selectors.EVENT_READ, number)
        while not any(ready):
            for key, _ in streams.select(60):
                said[key.data] += key.fileobj.readline()
                ready[key.data] = waiting in said[key.data]
    held.unlink()
    said = [text + everything_said_by(process) for text, process in zip(said, both, strict=True)]
    assert [process.returncode for process in both] == [0, 0]
    assert times_built(fake_go) == 1
    assert [waiting in text for text in said] == ready


@pytest.mark.parametrize(
    "tenths", [pytest.param(tenths, marks=pytest.mark.slow if tenths % 2 else ()) for tenths in range(8)]
)
def test_a_killed_download_leaves_no_half_program_and_the_next_goes_on(install, site, tmp_path, tenths):
    asset = release_of_etcd(site, padding=100_000)
    site.seconds_per_chunk = 0.004  # the whole takes about half a second
    victim = install(site=site, asset=asset)
    time.sleep(tenths / 10)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    whole = hashlib.sha256(etcd_script("3.7.3").encode() + b"#" * 100_000).hexdigest()
    there = list((tmp_path / "cache" / "programs").glob("*/*"))
    for program in there:
        assert hashlib.sha256(program.read_bytes()).hexdigest() == whole

    got = sum(path.stat().st_size for path in (tmp_path / "cache" / "downloads").glob("*"))
    site.requests.clear()
    site.seconds_per_chunk = 0
    heir = install(site=site, asset=asset)
    said = everything_said_by(heir)
    assert heir.returncode == 0, said
    # Killed after the last rename, it has left nothing to fetch.
    if got and not {program.name for program in there} >= {"etcd", "etcdctl"}:
        assert site.requests[0][1] == f"bytes={got}-"
    for name in ("etcd", "etcdctl"):
        (program,) = (tmp_path / "cache" / "programs").glob(f"{name}-*/{name}")
        assert hashlib.sha256(program.read_bytes()).hexdigest() == whole


@pytest.mark.parametrize("tenths", range(0, 8, 2))
def test_a_killed_build_leaves_no_half_program_and_the_next_succeeds(install, fake_go, tmp_path, tenths):
    (fake_go / "slow").write_text("0.3")
    victim = install()
    time.sleep(tenths / 10)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    for program in (tmp_path / "cache" / "programs").glob("*/*"):
        assert program.read_text() == '#!/bin/sh\necho "Version: 3.7.3"\n'
    (fake_go / "slow").unlink()
    heir = install()
    said = everything_said_by(heir)
    assert heir.returncode == 0
    assert 'echo "Version: 3.7.3"' in said


def test_what_a_dead_installer_left_in_the_scratch_directory_is_swept(install, fake_go, tmp_path):
    script(tmp_path / "cache" / "scratch" / "etcd" / "module" / "bin" / "etcd", "half of")
    process = install()
    everything_said_by(process)
    assert process.returncode == 0
    assert list((tmp_path / "cache" / "scratch").iterdir()) == []
