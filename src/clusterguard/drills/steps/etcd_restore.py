"""``etcdRestore``: replace a cluster's etcd data by a snapshot."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from clusterguard.documents.model import Label
from clusterguard.drills.backups import require_etcd
from clusterguard.drills.steps.base import Action, StepContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.drills.load import LoadedStep


class EtcdRestore(Action):
    """Put a snapshot in the place of the cluster's etcd data, and bring the control plane back up on it."""

    phases = ("restore",)
    destructive = True
    engine = "etcd"
    backup_field = "from_"

    from_: Annotated[Label, Field(alias="from")]
    """The name of an etcdSnapshot of the backup phase."""

    def plan(self) -> str:
        return f"replace the cluster's whole etcd data by snapshot `{self.from_}`"

    def details(self, step: LoadedStep) -> Iterator[str]:
        yield f"check `{self.from_}` (digest, trailer, structure), and programs, rights and free space"
        yield (
            "etcdutl snapshot restore SNAPSHOT --data-dir NEW-DATA-DIR --name MEMBER"
            " --initial-cluster MEMBER=PEER-URL --initial-cluster-token TOKEN"
            " --initial-advertise-peer-urls PEER-URL --bump-revision N --mark-compacted"
            "   (N: beyond every revision served so far)"
        )
        yield "stop kube-scheduler, kube-controller-manager, kube-apiserver, then etcd"
        yield "move the live data directory aside, put the new one in its place"
        yield "start etcd and wait until it serves, then kube-apiserver until it is ready"
        yield "if anything fails up to here: roll back to the old data directory; afterwards nothing is rolled back"
        yield "start kube-controller-manager and kube-scheduler"

    def require(self, here: StepContext) -> None:
        require_etcd(here, lambda cluster: cluster.control_plane)

    def perform(self, here: StepContext) -> str:
        cluster = here.cluster
        taken = here.run.snapshot(self.from_)
        here.run.restored_at[here.step.cluster] = datetime.now(UTC)
        snapshotter = here.run.snapshotter(here.run.store_of(taken), access=cluster.etcd)
        result = snapshotter.restore(taken.record.name, cluster)
        cluster.api.resources(refresh=True)  # definitions may have come and gone with the data
        longest = max(result.steps, key=lambda one: one.seconds)
        warnings = "".join(f"; {warning}" for warning in result.warnings)
        return (
            f"revision {result.revision_before} → {result.snapshot.revision} raised to {result.revision_after}; "
            f"longest: {longest.name}, {longest.seconds:.1f} s{warnings}"
        )
