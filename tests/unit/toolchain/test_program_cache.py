"""The cache of programs: one installer at a time."""

import pytest

from clusterguard.toolchain import cache as module
from clusterguard.toolchain.cache import Cache


def test_whoever_waits_for_another_installer_may_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_ASK_AGAIN_SECONDS", 0.01)
    told = []

    def enough():
        told.append("waiting")
        if len(told) == 3:
            raise InterruptedError

    cache = Cache(tmp_path)
    with cache.lock("etcd", when_waiting=pytest.fail):
        with pytest.raises(InterruptedError), Cache(tmp_path).lock("etcd", when_waiting=enough):
            pytest.fail("two installers at once")
        assert len(told) == 3
    with Cache(tmp_path).lock("etcd", when_waiting=pytest.fail):
        pass
