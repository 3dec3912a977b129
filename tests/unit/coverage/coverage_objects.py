"""A small cluster, its backups and its policies, as coverage sees them."""

from datetime import UTC, datetime, timedelta

from clusterguard.coverage.found import Found, Kind, PodUse, Thing
from clusterguard.coverage.sources import Source
from clusterguard.coverage.takes import Taking
from clusterguard.velero.claims import ClaimedVolume
from clusterguard.velero.csi import SnapshotClasses
from clusterguard.velero.options import BackupOptions
from clusterguard.velero.resources import Backup, BackupStorageLocation, DataUpload, PodVolumeBackup, Schedule

NOW = datetime(2030, 1, 2, 12, tzinfo=UTC)
TAKEN = datetime(2030, 1, 2, 2, tzinfo=UTC)
OLD, YOUNG = "2029-01-01T00:00:00Z", "2030-01-02T11:00:00Z"

NAMESPACE = Kind("Namespace", "namespaces", namespaced=False)
CONFIG = Kind("ConfigMap", "configmaps", namespaced=True)
POD = Kind("Pod", "pods", namespaced=True)
ACCOUNT = Kind("ServiceAccount", "serviceaccounts", namespaced=True)
CLAIM = Kind("PersistentVolumeClaim", "persistentvolumeclaims", namespaced=True)
VOLUME = Kind("PersistentVolume", "persistentvolumes", namespaced=False)
MENU = Kind("Menu.example.com", "menus.example.com", namespaced=True)
WORLD = Kind("World.example.com", "worlds.example.com", namespaced=False)
DEFINITION = Kind(
    "CustomResourceDefinition.apiextensions.k8s.io", "customresourcedefinitions.apiextensions.k8s.io", namespaced=False
)
ROLE = Kind("ClusterRole.rbac.authorization.k8s.io", "clusterroles.rbac.authorization.k8s.io", namespaced=False)
BINDING = Kind(
    "ClusterRoleBinding.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io", namespaced=False
)

DRIVER = "csi.example.com"


def thing(name="one", namespace="shop", *, created=OLD, rule="", **labels):
    return Thing(name, namespace, labels, created, rule)


def found(things=None, **more):
    """Return a cluster with the namespace `shop`, and whatever else is given."""
    given = dict(things or {})
    given.setdefault(NAMESPACE, [thing("shop", "")])
    return Found(cluster="context:prod", at=NOW, things=given, **more)


def velero(name="schedule nightly", *, taken=TAKEN, snapshots=(0, 0), transfers=(), **spec):
    options = BackupOptions.from_spec(spec)
    return Source(
        name=name, backup="nightly-1", taken=taken, options=options, snapshots=snapshots, transfers=tuple(transfers)
    )


def etcd(taken=TAKEN):
    return Source(name="policy prod/etcd", backup="etcd-1", taken=taken)


def taking(source, cluster):
    return Taking(source, cluster)


def written(moment):
    return moment.isoformat().replace("+00:00", "Z")


def backup(name="nightly-1", *, phase="Completed", schedule="nightly", started=TAKEN, spec=None, labels=None, **status):
    labels = {**({"velero.io/schedule-name": schedule} if schedule else {}), **(labels or {})}
    manifest = {
        "metadata": {"name": name, "namespace": "velero", "labels": labels, "creationTimestamp": written(started)},
        "spec": {"storageLocation": "default", **(spec or {})},
        "status": {"phase": phase, "startTimestamp": written(started), **status},
    }
    return Backup.model_validate(manifest)


def schedule(name="nightly", cron="0 2 * * *"):
    return Schedule.model_validate({"metadata": {"name": name}, "spec": {"schedule": cron}})


def location(name="default", phase="Available"):
    return BackupStorageLocation.model_validate({"metadata": {"name": name}, "status": {"phase": phase}})


def files(volume="shop/db-0:data", *, phase="Completed", claim="", uid="", message=""):
    namespace, _, rest = volume.partition("/")
    pod, _, of = rest.partition(":")
    metadata = {
        "name": "x",
        "annotations": {"velero.io/pvc-name": claim} if claim else {},
        "labels": {"velero.io/pvc-uid": uid} if uid else {},
    }
    spec = {"pod": {"namespace": namespace, "name": pod}, "volume": of}
    return PodVolumeBackup.model_validate(
        {"metadata": metadata, "spec": spec, "status": {"phase": phase, "message": message}}
    )


def upload(namespace="shop", claim="data", *, phase="Completed"):
    spec = {"sourceNamespace": namespace, "sourcePVC": claim}
    return DataUpload.model_validate({"metadata": {"name": "x"}, "spec": spec, "status": {"phase": phase}})


def claimed(name="data", *, source="csi", driver=DRIVER, volume="pv", uid="u-1", **more):
    driver = driver if source == "csi" else ""
    given = {"annotations": {}, "pods": ("db-0",), "storage_class": "fast", **more}
    return ClaimedVolume(namespace="shop", name=name, volume=volume, source=source, driver=driver, uid=uid, **given)


def with_claims(*claims, uses=None, classes=(DRIVER,), **more):
    """Return a cluster whose claims are used by the Pod `db-0`, each as a volume of its own name."""
    items = [{"metadata": {"name": f"class-{number}"}, "driver": driver} for number, driver in enumerate(classes)]
    named = {("shop", each.name): (PodUse("db-0", each.name),) for each in claims}
    things = {CLAIM: [thing(each.name) for each in claims], **more.pop("things", {})}
    return found(
        things,
        claims=tuple(claims),
        uses=named if uses is None else uses,
        snapshot_classes=SnapshotClasses(items=items),
        **more,
    )


def hours(number):
    return timedelta(hours=number)
