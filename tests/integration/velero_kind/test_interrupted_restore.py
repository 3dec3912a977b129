"""The control-plane node loses its power in the middle of a restore: that is told, and the next restore works."""

import threading
import time
from contextlib import suppress

import pytest

from clusterguard.drills import Verdict
from clusterguard.drills.events import StepStarted
from clusterguard.errors import ClusterGuardError

pytestmark = [pytest.mark.kind, pytest.mark.slow, pytest.mark.timeout(1500)]


class PowerCut:
    """Cuts the power of the only node once Velero works on a restore, and gives it back."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.happened = threading.Event()

    def tell(self, event):
        if isinstance(event, StepStarted) and event.title == "veleroRestore":
            threading.Thread(target=self._cut_in_the_middle, daemon=True).start()

    def _cut_in_the_middle(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with suppress(ClusterGuardError):
                restores = self.cluster.api.resource("Restore.velero.io")
                if any(
                    (item.get("status") or {}).get("phase") == "InProgress" for item in self.cluster.api.list(restores)
                ):
                    break
            time.sleep(0.05)
        (node,) = self.cluster.node_power()
        self.cluster.stop_node(node)
        self.happened.set()
        self.cluster.start_node(node)


def test_a_restore_that_was_cut_off_is_no_success_and_the_next_one_is(run, spec, cluster, clean):
    cut = PowerCut(cluster)
    result = run(spec, tell=cut.tell)
    assert cut.happened.is_set()
    assert result.verdict is not Verdict.PASS, result
    assert "veleroRestore" in result.reason
    clean()
    again = run(spec)
    assert again.verdict is Verdict.PASS, again
