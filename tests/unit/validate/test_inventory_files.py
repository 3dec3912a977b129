"""Inventories survive the disk, or say that they did not."""

import copy
import gzip
import hashlib
import stat
from datetime import UTC, datetime

import orjson
import pytest

from clusterguard.errors import ConfigError
from clusterguard.model.inventory import Inventory, ObjectRef, Scope, canonical
from clusterguard.validate import load_inventory, save_inventory

ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "shop"}}


def inventory(count=3):
    items = [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": f"web-{n}", "namespace": "shop"},
            "é": n,
        }
        for n in range(count)
    ]
    return Inventory(
        taken=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        server_version="v1.36.3",
        scope=Scope(namespaces=("shop",), kinds=("Deployment",), selector="a=b", exclude=("*.metrics.k8s.io",)),
        objects={ObjectRef.of(item): canonical(copy.deepcopy(item)) for item in items},
        system={ObjectRef.of(ACCOUNT): canonical(copy.deepcopy(ACCOUNT))},
        plain_status=frozenset({"Widget.example.com"}),
        skipped={"Widget.example.com": "403"},
        unanswered={"metrics.k8s.io/v1beta1": "503"},
        left_out={"system namespaces": 4},
        not_listed={"Event": "events"},
    )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_is_saved_is_what_is_loaded(tmp_path, count):
    save_inventory(inventory(count), tmp_path / "i")
    assert load_inventory(tmp_path / "i") == inventory(count)


def test_only_its_owner_may_read_it(tmp_path):
    save_inventory(inventory(), tmp_path / "i")
    assert stat.S_IMODE((tmp_path / "i").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["i"]


def test_the_same_inventory_makes_the_same_bytes(tmp_path):
    save_inventory(inventory(), tmp_path / "a")
    save_inventory(inventory(), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_cut_anywhere_is_refused(tmp_path):
    save_inventory(inventory(), tmp_path / "i")
    data = (tmp_path / "i").read_bytes()
    for length in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(ConfigError, match="inventory"):
            load_inventory(tmp_path / "cut")


def test_a_file_that_lost_whole_lines_is_refused(tmp_path):
    save_inventory(inventory(), tmp_path / "i")
    lines = gzip.decompress((tmp_path / "i").read_bytes()).splitlines(keepends=True)
    for kept in (lines[:-1], lines[:1] + lines[2:], [*lines[:1], lines[2], lines[1], *lines[3:]], lines[1:]):
        (tmp_path / "cut").write_bytes(gzip.compress(b"".join(kept)))
        with pytest.raises(ConfigError, match="damaged"):
            load_inventory(tmp_path / "cut")


def test_a_flipped_bit_is_noticed(tmp_path):
    save_inventory(inventory(), tmp_path / "i")
    data = bytearray((tmp_path / "i").read_bytes())
    for position in range(10, len(data)):  # the first ten bytes are gzip's own header, which holds nothing of ours
        data[position] ^= 1
        (tmp_path / "flipped").write_bytes(data)
        with pytest.raises(ConfigError):
            load_inventory(tmp_path / "flipped")
        data[position] ^= 1


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"", "damaged"),
        (b"hello", "gzip"),
        (gzip.compress(b"hello", mtime=0), "damaged"),
        (gzip.compress(b"{}\n", mtime=0), "it is not an inventory"),
        (gzip.compress(b'{"format":"clusterguard-inventory","version":2}\n', mtime=0), "format version 2"),
    ],
)
def test_what_is_no_inventory_is_refused_with_what_was_seen(tmp_path, content, seen):
    (tmp_path / "i").write_bytes(content)
    with pytest.raises(ConfigError, match=seen):
        load_inventory(tmp_path / "i")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_inventory(tmp_path / "none")


def test_a_failed_save_leaves_the_old_file(tmp_path):
    save_inventory(inventory(1), tmp_path / "i")
    broken = inventory(2)
    object.__setattr__(broken, "objects", {next(iter(broken.objects)): None})
    with pytest.raises(TypeError):
        save_inventory(broken, tmp_path / "i")
    assert load_inventory(tmp_path / "i") == inventory(1)
    assert [path.name for path in tmp_path.iterdir()] == ["i"]


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError) as caught:
        save_inventory(inventory(), tmp_path / "none" / "i")
    assert caught.value.code == "inventory-not-written"


def test_a_file_of_an_earlier_version_is_read_and_a_group_that_did_not_answer_is_told_as_such(tmp_path):
    header = {
        "format": "clusterguard-inventory",
        "version": 1,
        "taken": "2026-01-02T03:04:05+00:00",
        "serverVersion": "v1.36.3",
        "scope": {"namespaces": [], "kinds": [], "selector": "", "exclude": []},
        "skipped": {"*.metrics.k8s.io": "503", "Secret": "403"},
        "leftOut": {},
        "notListed": {},
    }
    lines = orjson.dumps(header) + b"\n" + canonical(copy.deepcopy(ACCOUNT)) + b"\n"
    end = orjson.dumps({"objects": 1, "sha256": hashlib.sha256(lines).hexdigest()}) + b"\n"
    (tmp_path / "i").write_bytes(gzip.compress(lines + end))
    loaded = load_inventory(tmp_path / "i")
    assert loaded.skipped == {"Secret": "403"}
    assert loaded.unanswered == {"metrics.k8s.io/*": "503"}
    assert (loaded.system, loaded.plain_status, len(loaded)) == ({}, frozenset(), 1)
