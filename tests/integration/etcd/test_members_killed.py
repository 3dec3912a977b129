"""A restore of three members that is killed at any moment of any member leaves one state, on all of them."""

from __future__ import annotations

import pytest
from test_restore_embedded import killed_restore, script, with_program
from test_restore_members import MEMBERS, World

from clusterguard.clusters import EmbeddedCluster
from clusterguard.errors import RestoreError

pytestmark = pytest.mark.programs

LIVE = ("etcd", "etcd-2", "etcd-3")
# What the next run must come to: until the first member is proven the old state, from then on the restored one.
MOMENTS = (
    dict.fromkeys(("verify the snapshot", "check the control plane"), "old")
    | dict.fromkeys(("build the new data directory", "stop the control plane"), "old")
    | {f"rename to {name}{suffix}": "old" for name in LIVE for suffix in (".before", "")}
    | dict.fromkeys(("swap the data directory", "start etcd", "compare the members", "start the API server"), "old")
    | {f"rename to {name}.proven": "restored" for name in LIVE}
    | dict.fromkeys(("commit", "start the controllers"), "restored")
    | {f"rename to {name}.kept": "restored" for name in LIVE}
    | {"clean up": "restored"}
)
QUICK = {"rename to etcd-2.before", "rename to etcd.proven"}


@pytest.fixture(scope="module")
def kept(toolchain, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    cluster = EmbeddedCluster("kept", toolchain=toolchain, home=home, outlive_us=True, members=3).start()
    yield home
    cluster.delete()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "when", [moment if moment in QUICK else pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS]
)
def test_a_restore_killed_at_any_moment_of_any_member_is_recovered_from(kept, tmp_path, when):
    world = World(EmbeddedCluster.attach("kept", home=kept), tmp_path / "store")
    killed_restore(kept, world, when, tmp_path / "tmp")
    world.cluster.close()
    world.cluster = EmbeddedCluster.attach("kept", home=kept)
    world.assert_serving(MOMENTS[when])
    world.cluster.close()


@pytest.mark.parametrize("member", [MEMBERS[1], *(pytest.param(MEMBERS[n], marks=pytest.mark.slow) for n in (0, 2))])
def test_a_member_that_does_not_start_on_the_new_state_brings_all_of_them_back(kept, tmp_path, member):
    world = World(EmbeddedCluster.attach("kept", home=kept), tmp_path / "store")
    real, mark = world.cluster.record.programs["etcd"], tmp_path / "failed-once"
    fail_once = f'[ -e {mark} -o "$1" != --name={member} ] && exec {real} "$@"; touch {mark}; exit 3'
    undo = with_program(world.cluster.folder, "etcd", script(tmp_path / "etcd", fail_once))
    try:
        with pytest.raises(RestoreError) as raised:
            world.restore()
    finally:
        undo()
    assert mark.exists()
    assert raised.value.rolled_back
    world.cluster.control_plane.recover()  # so that the record names the real program again
    world.assert_serving("old")
    world.cluster.close()
