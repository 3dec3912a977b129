from __future__ import annotations

import pytest

from clusterguard.errors import ConfigError, ObjectChangedError, ObjectExistsError
from clusterguard.stores import DryRunStore, MemoryStore, ObjectStore, PlannedChange


@pytest.fixture
def real():
    store = MemoryStore()
    with store.put("old") as writer:
        writer.write(b"old")
    return store


@pytest.fixture
def dry(real):
    return DryRunStore(real)


def test_reads_show_the_real_store(dry, real):
    assert isinstance(dry, ObjectStore)
    assert dry.url == real.url
    assert list(dry.list()) == list(real.list())
    assert dry.stat("old") == real.stat("old")
    with dry.get("old") as reader:
        assert reader.read() == b"old"


def test_changes_are_recorded_and_not_made(dry, real):
    with dry.put("new") as writer:
        writer.write(b"abc")
        writer.write(memoryview(b"de"))
    dry.delete("old")
    assert dry.planned == (
        PlannedChange(verb="put", key="new", size=5),
        PlannedChange(verb="delete", key="old"),
    )
    assert [info.key for info in real.list()] == ["old"]


def test_a_version_that_is_there_may_be_replaced_once(dry, real):
    version = dry.stat("old").version
    with dry.put("old", if_version=version):
        pass
    assert dry.planned == (PlannedChange(verb="put", key="old"),)
    assert real.stat("old").version == version
    with pytest.raises(ObjectChangedError), dry.put("old", if_version=version):
        pass


def test_a_put_that_fails_is_not_planned(dry):
    with pytest.raises(ZeroDivisionError), dry.put("new"):
        raise ZeroDivisionError
    assert dry.planned == ()


def test_refuses_what_the_real_run_would_refuse(dry):
    with pytest.raises(ObjectExistsError), dry.put("old"):
        pass
    with dry.put("new"):
        pass
    with pytest.raises(ObjectExistsError), dry.put("new"):
        pass
    with dry.put("new", overwrite=True):
        pass
    dry.delete("old")
    with dry.put("old"):
        pass
    version = dry.stat("old").version
    for key, named in (("old", version), ("old", "another"), ("new", version), ("never", version)):
        with pytest.raises(ObjectChangedError), dry.put(key, if_version=named):
            pass  # "old" was planned to be removed and made anew: the real run would meet another version
    for refuse in (dry.delete, dry.stat, lambda key: dry.put(key).__enter__()):
        with pytest.raises(ConfigError):
            refuse("../bad")
