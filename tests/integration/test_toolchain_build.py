"""A real compilation with a real Go: the download site does not answer, the program runs in the end."""

from __future__ import annotations

import os

import pytest

from clusterguard import process
from clusterguard.toolchain import Source, Toolchain
from clusterguard.toolchain.golang import find_go

pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_etcdutl_is_compiled_where_it_cannot_be_downloaded(tmp_path):
    search = os.environ["PATH"]
    if find_go(needed=(1, 26, 0), path=search) is None:
        pytest.skip("no Go 1.26 or newer on PATH, and its wheel is not installed")
    told = []
    toolchain = Toolchain(
        cache=tmp_path / "cache",
        path=search,
        sources=(Source.CACHE, Source.DOWNLOAD, Source.BUILD),
        mirror="http://127.0.0.1:9",  # discard: nobody listens there
        progress=told.append,
    )
    etcdutl = toolchain.ensure("etcdutl")["etcdutl"]
    assert "etcdutl version: 3.7.3" in process.run([etcdutl, "version"], timeout_seconds=10).stdout
    assert any("127.0.0.1:9 cannot be reached" in moment.note for moment in told)
    assert told[-1].finished
    assert told[-1].done == told[-1].total
    assert toolchain.find("etcdutl").source is Source.CACHE
