"""A drill that `drill init --backup velero` writes of a live namespace: it passes, and finds every defect."""

import pytest

from busy_shop import look_at_busy_shop
from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drill
from clusterguard.drills.authoring.folder import drill_files_of, write_files

pytestmark = [pytest.mark.programs, pytest.mark.timeout(900)]


@pytest.mark.slow  # a cluster and a server of its own, and sixty defects
def test_a_drill_by_velero_of_a_live_namespace_finds_every_defect(shared_cluster, velero_lock, tmp_path):
    files, _ = drill_files_of(look_at_busy_shop(shared_cluster.api), engine="velero", origin="context:prod")
    drill = load_drill(write_files(tmp_path / "drill", files)[-1])
    with velero_lock:
        result = DrillRunner(settings=DrillSettings(mutate=100)).run(drill)
    assert result.verdict is Verdict.PASS, result.reason
    assert (result.mutation.score, result.mutation.stopped) == (100, "")
    found = {each.defect for each in result.mutation.with_outcome("found")}
    assert found >= {"secret-changed", "rule-widened", "subject-changed", "network-opened", "definition-older"}
