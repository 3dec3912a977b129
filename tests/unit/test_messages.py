"""The messages that users see most, in one golden file: read the diff of tests/golden/messages.txt as they would.

`CLUSTERGUARD_WRITE_GOLDEN=1 ./dev pytest -n0 tests/unit/test_messages.py` writes it anew.
"""

from __future__ import annotations

import difflib
import os
import re
import ssl
import textwrap
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyrage
import pytest

from bolt_pages import etcd_image, key_value, opened, revision_key, with_trailer
from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.embedded.cluster import EmbeddedCluster
from clusterguard.clusters.kube_errors import not_kubernetes, status_error, transport_error
from clusterguard.clusters.kubeadm.manifests import EtcdManifest
from clusterguard.clusters.kubeadm.membership import judge_gone
from clusterguard.clusters.kubeconfig import read_kubeconfig
from clusterguard.clusters.node_shell import open_node_shell
from clusterguard.clusters.opening import existing_cluster, open_cluster, require_allowed
from clusterguard.drills.load import load_drill, load_drills
from clusterguard.errors import ClusterError, ClusterGuardError, ClusterUnreachableError, RestoreError
from clusterguard.etcd import EtcdSnapshotter, membership
from clusterguard.etcd import restore as restore_module
from clusterguard.etcd.hashkv import hash_kv
from clusterguard.etcd.member import EtcdMember
from clusterguard.etcd.verification import verify_file
from clusterguard.etcd.wire import SnapshotFrames
from clusterguard.model.durations import parse_duration
from clusterguard.model.snapshot import Snapshot
from clusterguard.model.support import require_restorable, require_supported
from clusterguard.policies.copies.encryption import encryption_of
from clusterguard.policies.copies.locations import StorageLocation
from clusterguard.policies.copies.stored import find_copy
from clusterguard.policies.deploy.ci import github_workflow
from clusterguard.policies.deploy.crontab import crontab
from clusterguard.policies.deploy.kubernetes import CronJobOptions, cronjob_manifests
from clusterguard.policies.files.load import load_policy
from clusterguard.policies.files.starter import write_starter
from clusterguard.policies.policy import Encryption as Keys
from clusterguard.policies.policy import EtcdSource, Location, Policy, Schedule, Source
from clusterguard.policies.runs.lease import LeaseTiming
from clusterguard.policies.runs.lock import RunLock, locked
from clusterguard.rehearsal.versions import requested_api_server
from clusterguard.retrying import RetryPolicy
from clusterguard.scratch import scratch_folder
from clusterguard.snapshots.encryption import EncryptionKeys
from clusterguard.snapshots.reader import SnapshotReader
from clusterguard.sockets import require_free
from clusterguard.stores import LocalStore, MemoryStore, ReplicatedStore, copy_object, open_store
from clusterguard.stores.encryption import EncryptedStore, Encryption
from clusterguard.stores.transfer import read_object
from clusterguard.toolchain import Toolchain, from_environment
from clusterguard.toolchain.toolchain import Source as ProgramSource
from clusterguard.validate import load_inventory
from clusterguard.validate.paths import parse_pattern
from clusterguard.validate.rules import profile_named
from clusterguard.velero.adoption import adopted
from clusterguard.velero.bucket import objects_in_backup, verify_backup
from clusterguard.velero.checks import require_firing
from clusterguard.velero.client import VeleroClient
from clusterguard.velero.layout import BackupLayout
from clusterguard.velero.locations import LocationSpec
from clusterguard.velero.manifest import load_manifest, record_manifest
from clusterguard.velero.options import BackupOptions
from clusterguard.velero.selectors import LabelSelector
from mistakes import DRILL, DRILL_MISTAKES, POLICY, POLICY_MISTAKES
from small_snapshot import OBJECTS, file_of, history_of, stored

GOLDEN = Path(__file__).parents[1] / "golden/messages.txt"
NOW = datetime(2030, 1, 31, tzinfo=UTC)
READER, STRANGER = (pyrage.x25519.Identity.generate() for _ in range(2))
RECIPIENT = str(READER.to_public())
IMAGE = etcd_image([(revision_key(n), key_value(b"k%d" % n, n, n, 1, b"v")) for n in range(2, 22)])
RECORD = Snapshot(
    name="nightly", key="nightly.db", taken=NOW, revision=100, total_keys=1, size=5000, etcd_version="3.7.3",
    storage_version="3.7.0", cluster_id="a", member_id="b", member_name="m", sha256="0" * 64, hash_kv=1,
    hash_revision=100, compact_revision=-1, endpoint="https://127.0.0.1:2379",
)  # fmt: skip
ETCD = Source(name="etcd", etcd=EtcdSource(endpoints=("https://127.0.0.1:2379",)))


def put(store, key, data=b"bytes", **options):
    with store.put(key, **options) as writer:
        writer.write(data)


def read(store, key):
    with store.get(key) as reader:
        while reader.read(1 << 20):
            pass


def policy(**changes):
    given = {"name": "nightly", "sources": (ETCD,), "locations": (Location(name="near", url="memory:"),)}
    return Policy(**given | changes)


def file(folder, name, content, *, mode=0o600):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


# ---- stores and encryption -------------------------------------------------------------------------------


def object_exists():
    store = MemoryStore()
    put(store, "a.db")
    put(store, "a.db")


def object_changed():
    store = MemoryStore()
    put(store, "a.db")
    put(store, "a.db", if_version="another", overwrite=True)


def encrypted(*, identities=(), change=lambda data: data, level=None, recipients=(RECIPIENT,)):
    """Read an object back that was encrypted for READER, after a change of its bytes."""
    inner = MemoryStore()
    put(EncryptedStore(inner, Encryption(recipients=recipients, compression_level=level)), "a.db", bytes(200_000))
    (stored,) = inner.list()
    with inner.get(stored.key) as reader:
        data = reader.read(1 << 20)
    put(inner, stored.key, change(data), overwrite=True)
    read(EncryptedStore(inner, Encryption(recipients=recipients, identities=identities)), "a.db")


def flipped(data):
    return data[:-1] + bytes([data[-1] ^ 1])


class Refusing(MemoryStore):
    def put(self, key, **_):
        raise ClusterUnreachableError("no answer in time")


def too_few_stores():
    put(ReplicatedStore({"near": MemoryStore(), "far": Refusing()}, minimum=2), "a.db")


STORES = {
    "a word for a store": lambda _: open_store("backups"),
    "a misspelt store": lambda _: open_store("s4://backups"),
    "a bucket without a name": lambda _: open_store("s3:///etcd"),
    "a misspelt parameter": lambda _: open_store("s3://backups?regoin=eu"),
    "a password in a store": lambda _: open_store("s3://user:secret@backups/etcd"),
    "an endpoint that is not a URL": lambda _: open_store("s3://backups?endpoint=minio"),
    "a key that leads elsewhere": lambda _: put(MemoryStore(), "../a"),
    "object not found": lambda folder: read_object(LocalStore(folder), "etcd/a.json", most_bytes=100),
    "object exists": lambda _: object_exists(),
    "object changed": lambda _: object_changed(),
    "copy of nothing": lambda _: copy_object(MemoryStore(), "a", MemoryStore()),
    "too few stores": lambda _: too_few_stores(),
    "encrypted, wrong key": lambda _: encrypted(identities=(str(STRANGER),)),
    "encrypted, no key": lambda _: encrypted(),
    "encrypted, cut off": lambda _: encrypted(identities=(str(READER),), change=lambda data: data[:-1]),
    "encrypted, changed": lambda _: encrypted(identities=(str(READER),), change=flipped),
    "compressed, cut off": lambda _: encrypted(recipients=(), level=3, change=lambda data: data[:-1]),
    "compressed, followed by others": lambda _: encrypted(recipients=(), level=3, change=lambda data: data + b"!"),
    "a private key as a recipient": lambda _: Encryption(recipients=(str(READER),)),
    "an unknown recipient": lambda _: Encryption(recipients=("ecdsa-sha2-nistp256 AAAA me@host",)),
    "an identity cut short": lambda _: Encryption(recipients=(RECIPIENT,), identities=(str(READER)[:-1],)),
    "keys and a passphrase": lambda _: Encryption(recipients=(RECIPIENT,), passphrase="x"),
    "an empty passphrase": lambda _: Encryption(passphrase=""),
    "a recipients file of comments": lambda folder: keys(recipients_file=file(folder, "readers.txt", "# none\n")),
    "an identity that others read": lambda folder: keys(identity_file=file(folder, "id", str(READER), mode=0o644)),
    "an identity that is missing": lambda folder: keys(identity_file=folder / "id"),
    "an identity that is empty": lambda folder: keys(identity_file=file(folder, "id", "\n")),
    "an identity in no variable": lambda _: keys(identity_env="AGE_KEY"),
    "scratch folder": lambda folder: scratch_folder(folder / "none"),
}


def keys(**of):
    named = {name: str(value) for name, value in of.items()}
    encryption_of(policy(encryption=Keys(**{"recipients": (RECIPIENT,)} | named)), {})


# ---- snapshots -------------------------------------------------------------------------------------------


def verified(folder, data, **options):
    verify_file(file(folder, "nightly.db", data), **options)


def broken_page():
    image = bytearray(IMAGE)
    image[3 * 4096] ^= 1
    return bytes(image)


def stream(*, received=0, remaining=None):
    frames = SnapshotFrames(lambda _: None)
    frames.received, frames.remaining = received, remaining
    frames.finish()


def hashed(**options):
    with opened(IMAGE) as db:
        hash_kv(db, **options)


def with_record(**changes):
    from json import dumps, loads

    Snapshot.from_json(dumps(loads(RECORD.to_json()) | changes))


def taken_name():
    store = MemoryStore()
    put(store, "nightly.json", RECORD.to_json().encode())
    EtcdSnapshotter(store=store, access=EtcdAccess(endpoints=("http://127.0.0.1:1",))).save("nightly")


SNAPSHOTS = {
    "empty": lambda folder: verified(folder, b""),
    "cut off": lambda folder: verified(folder, with_trailer(IMAGE)[:-100]),
    "a member's own file": lambda folder: verified(folder, IMAGE),
    "changed": lambda folder: verified(folder, with_trailer(IMAGE)[:-1] + b"!"),
    "changed in a page": lambda folder: verified(folder, broken_page() + with_trailer(IMAGE)[-32:]),
    "sent broken": lambda folder: verified(folder, with_trailer(broken_page())),
    "another one": lambda folder: verified(folder, with_trailer(IMAGE), expected_sha256="0" * 64),
    "missing file": lambda folder: verify_file(folder / "none.db"),
    "not found": lambda folder: EtcdSnapshotter(store=LocalStore(folder)).find("nightly"),
    "name taken": lambda _: taken_name(),
    "nothing to save from": lambda _: EtcdSnapshotter(store=MemoryStore()).save(),
    "no endpoints": lambda _: EtcdSnapshotter(store=MemoryStore(), access=EtcdAccess(endpoints=())).save(),
    "an endpoint that is none": lambda _: EtcdMember(EtcdAccess(endpoints=("etcd",)), "ftp://etcd"),
    "stream of nothing": lambda _: stream(),
    "stream that ended early": lambda _: stream(received=10_000, remaining=90_000),
    "record is not JSON": lambda _: Snapshot.from_json("{"),
    "record lacks a field": lambda _: Snapshot.from_json('{"format": 1}'),
    "record of a later release": lambda _: with_record(format=2),
    "record with another value": lambda _: with_record(revision="seven"),
    "revision not in the file": lambda _: hashed(revision=500),
    "compaction not in the file": lambda _: hashed(compacted=500),
}


# ---- restores --------------------------------------------------------------------------------------------


class Member:
    """A member that answers as one does before and after a restore."""

    revisions = iter(())

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def status(self):
        return SimpleNamespace(revision=next(Member.revisions))

    def alarms(self):
        return ()

    def authentication(self):
        return False


class Plane:
    """A control plane whose steps succeed, but for those that fail with the given error."""

    previous = "/var/lib/etcd.previous"

    def __init__(self, **failing):
        self._failing = failing

    @contextmanager
    def exclusive(self):
        yield

    def warnings(self):
        return ()

    def layout(self):
        return SimpleNamespace(cluster=())

    def __getattr__(self, step):
        def act(*_, **__):
            if step in self._failing:
                raise self._failing[step]
            return ""

        return act


def restored(**failing):
    Member.revisions = iter([150, 2_000_000])
    restore_module.restore_control_plane(
        Plane(**failing), EtcdAccess(endpoints=("http://127.0.0.1:1",)), snapshot=RECORD, file=Path("nightly.db"),
        retry=RetryPolicy(attempts=2, sleep=lambda _: None),
    )  # fmt: skip


def usable(**facts):
    given = SimpleNamespace(alarms=(), auth_enabled=False)
    vars(given).update(facts)
    restore_module.require_usable(given, EtcdAccess(endpoints=("http://127.0.0.1:1",)), disarm_alarms=False)


def hidden(*, nodes=(), error=None):
    def listed(*_, **__):
        if error:
            raise error
        return iter([{"metadata": {"name": name}} for name in nodes])

    api = SimpleNamespace(resource=lambda kind: kind, list=listed, server_version=lambda: "v1.33.1-eks-1b3c5d7")
    cluster = SimpleNamespace(name="prod", api=api, etcd=None, control_plane=None)
    EtcdSnapshotter(store=MemoryStore()).restore("nightly", cluster)


def manifest(*flags):
    command = "\n".join(f"    - --{flag}" for flag in flags)
    text = f"kind: Pod\nspec:\n  containers:\n  - name: etcd\n    command:\n    - etcd\n{command}\n"
    EtcdManifest.parse(text, where="node-1:/etc/kubernetes/manifests/etcd.yaml")


LOST = ClusterError("node-1: rm: the connection broke", hint="ssh node-1 rm /var/lib/etcd.staging")
TAKEN_OVER = RestoreError("another run has changed node-1", rolled_back=False, hint="look at it")
SEEN = SimpleNamespace(entries=(SimpleNamespace(id="8e9e05c52164694d"),), reason="it does not answer", silent=())


def gone(*names):
    raise next(judge_gone(names, nodes_of_api={"w-1": False}, listed=["cp-1"]))


def replaceable(name, *, places=None, **seen):
    """Replace a member of which this was seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership, "_look", lambda *_: SimpleNamespace(**vars(SEEN) | seen))
        membership._replaceable(None, {name: SimpleNamespace(begun=False)} if places is None else places, name)


RESTORES = {
    "failed before anything was touched": lambda _: restored(prepare=LOST),
    "failed and rolled back": lambda _: restored(start_etcd=LOST),
    "failed, and going back too": lambda _: restored(start_etcd=LOST, roll_back=ClusterError("no route to host")),
    "another run took over": lambda _: restored(start_etcd=LOST, roll_back=TAKEN_OVER),
    "restored, controllers idle": lambda _: restored(start_controllers=LOST),
    "restored, not committed": lambda _: restored(commit=LOST, clean_up=LOST),
    "alarm in the snapshot": lambda _: usable(alarms=(SimpleNamespace(kind="NOSPACE"),)),
    "alarm of corruption in the snapshot": lambda _: usable(alarms=(SimpleNamespace(kind="CORRUPT"),)),
    "authentication in the snapshot": lambda _: usable(auth_enabled=True),
    "newer storage": lambda _: require_restorable("3.7.0", "3.7.0", live="3.6.5", where="node-1"),
    "old etcd": lambda _: require_supported("etcd", "3.3.10", where="node-1"),
    "managed control plane": lambda _: hidden(),
    "node not named": lambda _: hidden(nodes=("cp-1",)),
    "cluster that does not answer": lambda _: hidden(error=ClusterUnreachableError("refused")),
    "a manifest of others": lambda _: manifest("name=a"),
    "no plan": lambda _: restore_module.plan_restore(None, None, snapshot=RECORD, file=Path("a")),
    "a worker said to be gone": lambda _: raised(
        *judge_gone(["w-1", "cp-9"], nodes_of_api={"w-1": False}, listed=["cp-1"])
    ),
    "a member that serves": lambda _: raised(membership._serves(SEEN, "cp-2")),
    "members without a majority": lambda _: raised(membership._no_quorum()),
    "a member of no known node": lambda _: replaceable("cp-2", places={}),
    "two lost members": lambda _: replaceable("cp-2", silent=("cp-3",)),
}


# ---- clusters --------------------------------------------------------------------------------------------


def answer(status, message, reason):
    body = f'{{"kind": "Status", "message": "{message}", "reason": "{reason}"}}'
    raise status_error(status, body.encode(), "GET https://10.0.0.1:6443/api/v1/pods")


def existing(reference):
    with existing_cluster(reference):
        pass


def raised(error):
    raise error


WHAT = "GET https://10.0.0.1:6443/version"
CLUSTERS = {
    "not a reference": lambda _: open_cluster("production"),
    "a throwaway cluster": lambda _: existing("kind"),
    "an embedded cluster that is missing": lambda folder: EmbeddedCluster.attach("blue", home=folder),
    "an invalid name": lambda folder: EmbeddedCluster("Blue_1", home=folder),
    "not started": lambda folder: EmbeddedCluster("blue", home=folder).api,
    "not allowed": lambda _: require_allowed("context:production", ["staging-*"]),
    "not a node": lambda _: open_node_shell("node-1"),
    "kubeconfig missing": lambda folder: read_kubeconfig(str(folder / "config")),
    "kubeconfig empty": lambda folder: read_kubeconfig(str(file(folder, "config", ""))),
    "kubeconfig of others": lambda folder: read_kubeconfig(str(file(folder, "config", "a: ["))),
    "port number": lambda _: require_free(99_999),
    "401": lambda _: answer(401, "Unauthorized", "Unauthorized"),
    "403": lambda _: answer(403, 'User \\"a\\" cannot list pods', "Forbidden"),
    "404": lambda _: answer(404, 'pods \\"web-0\\" not found', "NotFound"),
    "409": lambda _: answer(409, "the object has been modified", "Conflict"),
    "503": lambda _: answer(503, "etcdserver: leader changed", "ServiceUnavailable"),
    "time-out": lambda _: raised(transport_error(TimeoutError(), WHAT)),
    "refused": lambda _: raised(transport_error(ConnectionRefusedError(111, "Connection refused"), WHAT)),
    "untrusted": lambda _: raised(transport_error(untrusted(), WHAT)),
    "a log-in page": lambda _: raised(not_kubernetes(b"<html>log in</html>")),
    "old Kubernetes": lambda _: require_supported("Kubernetes", "1.20.0", where="prod"),
}


def untrusted():
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    return error


# ---- policies --------------------------------------------------------------------------------------------


def two_runs():
    location = StorageLocation(policy="nightly", location=Location(name="near", url="memory:"), root=MemoryStore())
    timing = LeaseTiming(renew_interval=0.05, lease_duration=600)
    with locked([location], run="20300131T020000Z-a", timing=timing):
        RunLock([location], run="20300131T030000Z-b", timing=timing).take(wait_seconds=0)


def in_pods(folder, text="kind: BackupPolicy\n", **changes):
    changes = {"schedule": Schedule(cron="0 2 * * *", time_zone="UTC")} | changes
    cronjob_manifests(policy(path=str(file(folder, "policy.yaml", text)), **changes), options=CronJobOptions())


def scheduled(cron, zone="Europe/Berlin"):
    return Schedule(cron=cron, time_zone=zone)


POLICIES = {
    "run in progress": lambda _: two_runs(),
    "no source of that name": lambda _: find_copy(policy(), "ectd"),
    "no location of that name": lambda _: find_copy(policy(), "etcd", location="far"),
    "no backup": lambda _: find_copy(policy(), "etcd"),
    "no backup of that name": lambda _: find_copy(policy(), "etcd", backup="etcd-20300131T020000Z"),
    "starter in a used folder": lambda folder: write_starter(
        file(folder, "policy.yaml", "").parent, {"policy.yaml": ""}
    ),
    "GitHub, too often": lambda _: github_workflow(policy(schedule=scheduled("* * * * *")), file="policy.yaml"),
    "GitHub, no schedule": lambda _: github_workflow(policy(), file="policy.yaml"),
    "cron in another zone": lambda _: crontab(
        scheduled("30 3 * * *"), policy="nightly", command=["clusterguard"], dialect="debian", system_zone="UTC"
    ),
    "CronJob, a folder": lambda folder: in_pods(folder, locations=(Location(name="near", url="./backups"),)),
    "CronJob, a variable": lambda folder: in_pods(
        folder, "url: ${env.BUCKET}\n", locations=(Location(name="near", url="s3://backups"),)
    ),
    "CronJob, long name": lambda folder: in_pods(folder, name="n" * 50),
    "file missing": lambda folder: load_policy(folder / "policy.yaml", environ={}),
    "file empty": lambda folder: load_policy(file(folder, "policy.yaml", "# nothing\n"), environ={}),
    "file is not YAML": lambda folder: load_policy(file(folder, "policy.yaml", "a: [1,\nb: 2"), environ={}),
    "drill missing": lambda folder: load_drills(folder / "none.drill.yaml", environ={}),
    "drill of a matrix": lambda folder: load_drill(
        file(folder, "a.drill.yaml", DRILL.replace("  clusters:", "  matrix: {n: [1, 2]}\n  clusters:", 1)), environ={}
    ),
    "duration": lambda _: parse_duration("soon"),
    "inventory missing": lambda folder: load_inventory(folder / "before.inventory"),
    "inventory damaged": lambda folder: load_inventory(file(folder, "before.inventory", b"\x1f\x8b")),
    "field path": lambda _: parse_pattern("spec..a"),
    "rule profile": lambda _: profile_named("etcd"),
}


# ---- Velero ----------------------------------------------------------------------------------------------


def in_bucket(document):
    return adopted(document, name="nightly", namespace="velero", location="default")


def backup(**changes):
    metadata = {"name": "nightly", "namespace": "velero"}
    document = {"kind": "Backup", "metadata": metadata, "status": {"phase": "Completed", "formatVersion": "1.1.0"}}
    return document | changes


def cut_tarball():
    store = MemoryStore()
    put(store, "backups/nightly/nightly.tar.gz", b"\x1f\x8b\x08\x00")
    list(objects_in_backup(store, "nightly"))


def other_manifest():
    vault, store = MemoryStore(), MemoryStore()
    put(store, "backups/weekly/velero-backup.json")
    record_manifest(store, "weekly", into=vault, now=NOW)
    (made,) = vault.list()
    put(vault, made.key.replace("weekly", "nightly"), read_object(vault, made.key, most_bytes=10_000))
    load_manifest(vault, "nightly")


VELERO = {
    "options that contradict": lambda _: BackupOptions(
        included_namespaces=("shop",), excluded_namespaces=("shop",), ttl=timedelta(0)
    ).to_spec(),
    "selector": lambda _: LabelSelector.parse("app in web"),
    "name": lambda _: BackupLayout("Nightly/1"),
    "schedule of no day": lambda _: require_firing("0 3 30 2 *"),
    "schedule of two kinds of days": lambda _: require_firing("0 3 1 * 1"),
    "restore of nothing": lambda _: VeleroClient(api=None).restore(),
    "location without a bucket": lambda _: LocationSpec(bucket="").to_spec(name="default"),
    "not in the bucket": lambda _: verify_backup(MemoryStore(), "nightly", now=NOW),
    "tarball cut off": lambda _: cut_tarball(),
    "not a backup": lambda _: in_bucket({}),
    "another backup": lambda _: in_bucket(backup(metadata={"name": "weekly"})),
    "newer format": lambda _: in_bucket(backup(status={"formatVersion": "2.0.0"})),
    "unfinished": lambda _: in_bucket(backup(status={"phase": "InProgress"})),
    "manifest of another backup": lambda _: other_manifest(),
    "manifest in Velero's location": lambda folder: record_manifest(
        LocalStore(folder), "nightly", into=LocalStore(folder / "manifests"), now=NOW
    ),
    "old Velero": lambda _: require_supported("Velero", "1.9.0", where="prod"),
}
TOOLCHAIN = {
    "nowhere": lambda folder: Toolchain(sources=(ProgramSource.PATH,), path="", cache=folder).ensure("etcd"),
    "named, and not there": lambda folder: Toolchain(explicit={"etcd": folder / "etcd"}, cache=folder).ensure("etcd"),
    "unknown program": lambda folder: Toolchain(cache=folder).ensure("ectd"),
    "unknown Kubernetes": lambda _: requested_api_server("1.29"),
    "unknown source": lambda _: from_environment({"CLUSTERGUARD_TOOLCHAIN_SOURCES": "path,magic"}),
}
# ---- objects in snapshots ----------------------------------------------------------------------------------


def snapshot_get(*words, **given):
    def act(folder):
        with SnapshotReader(path=file_of(folder, history_of(SMALL)), **given) as reader:
            reader.get(*words, namespace="shop")

    return act


def encryption_keys(text, *, mode=0o600):
    return lambda folder: EncryptionKeys.load(file(folder, "encryption.yaml", text, mode=mode))


SMALL = OBJECTS | {
    "/registry/secrets/shop/keyless": b"k8s:enc:aesgcm:v1:key1:" + bytes(30),
    "/registry/secrets/shop/cut": OBJECTS["/registry/secrets/shop/db"][:-1],
    "/registry/secrets/shop/other": b"not of Kubernetes",
    "/registry/routes/shop/web": stored("Route", "web", "shop", version="route.openshift.io/v1"),
}
OBJECTS_IN_SNAPSHOTS = {
    "an object that is not there": snapshot_get("pods", "web-2"),
    "a kind that is not there": snapshot_get("widgits.example.com", "a"),
    "a namespace for a kind without": snapshot_get("nodes", "node-1"),
    "a value of a KMS plugin": snapshot_get("secrets", "sealed"),
    "a value whose key is not given": snapshot_get("secrets", "keyless"),
    "a value whose key is another": snapshot_get(
        "secrets", "keyless", encryption=EncryptionKeys(keys={("aesgcm", "key1"): [bytes(32)]})
    ),
    "a value that is cut": snapshot_get("secrets", "cut"),
    "a value that is something else": snapshot_get("secrets", "other"),
    "a value of another API server": snapshot_get("routes", "web"),
    "a version that is none": snapshot_get("pods", "web-1", kubernetes="latest"),
    "keys that others may read": encryption_keys("kind: EncryptionConfiguration", mode=0o644),
    "keys of another kind": encryption_keys("kind: Pod"),
    "keys without providers": encryption_keys("kind: EncryptionConfiguration"),
    "keys that are not YAML": encryption_keys("a: ]"),
    "a key that is too short": encryption_keys(
        "kind: EncryptionConfiguration\nresources: [{providers: [{aesgcm: {keys: [{name: a, secret: c2hvcnQ=}]}}]}]"
    ),
}


SECTIONS = {
    "stores and encryption": STORES, "snapshots": SNAPSHOTS, "objects in snapshots": OBJECTS_IN_SNAPSHOTS,
    "restores": RESTORES, "clusters": CLUSTERS,
    "policies and drills": POLICIES, "velero": VELERO, "toolchain": TOOLCHAIN,
}  # fmt: skip


# ---- the file --------------------------------------------------------------------------------------------


def told(name, act, folder):
    folder.mkdir()
    try:
        act(folder)
    except (ClusterGuardError, ValueError) as error:
        code = error.code if isinstance(error, ClusterGuardError) else type(error).__name__
        message, hint = str(error), getattr(error, "hint", None)
    else:
        pytest.fail(f"{name}: nothing was refused")
    text = f"{name} [{code}]\n{textwrap.indent(message, '  ')}\n" + (
        textwrap.indent(f"hint: {hint}\n", "  ") if hint else ""
    )
    return anywhere(text, folder)


def anywhere(text, folder):
    """Return a text as it would be on any machine, at any time: without paths, processes and its time zones."""
    text = text.replace(str(folder), "/work")
    text = re.sub(r"process \d+ on [^)\s]+", "process 4711 on host", text)
    return re.sub(r"(no time zone '[^']*'); did you mean.*", r"\1; did you mean …", text)


def problems(text, load, **options):
    try:
        load(text, **options)
    except ClusterGuardError as error:
        return re.findall(r"^\S+:\d+:\d+: (.*)$", error.message, re.MULTILINE)
    pytest.fail("nothing was refused")


def mistakes(table, minimal, load, folder, **environ):
    folder.mkdir()
    for case, (old, new, *_) in table.items():
        path = file(folder, "x.drill.yaml", minimal.replace(old, new, 1))
        lines = problems(path, load, environ=environ)
        yield f"{case}\n" + "".join(f"  {anywhere(line, folder)}\n" for line in lines)


def texts(folder):
    for number, (title, cases) in enumerate(SECTIONS.items()):
        yield f"==== {title}\n\n"
        for index, (name, act) in enumerate(cases.items()):
            yield told(name, act, folder / f"{number}-{index}") + "\n"
    yield "==== mistakes in drill files\n\n"
    yield from mistakes(DRILL_MISTAKES, DRILL, load_drills, folder / "drills", APPS="x")
    yield "\n==== mistakes in policy files\n\n"
    yield from mistakes(POLICY_MISTAKES, POLICY, load_policy, folder / "policies", BACKUPS="x")


def test_the_messages_are_those_of_the_golden_file(tmp_path, monkeypatch):
    monkeypatch.setattr(restore_module, "EtcdMember", Member)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    found = "".join(texts(tmp_path))
    if os.environ.get("CLUSTERGUARD_WRITE_GOLDEN"):
        GOLDEN.write_text(found, encoding="utf-8")
    wanted = GOLDEN.read_text(encoding="utf-8")
    diff = difflib.unified_diff(wanted.splitlines(), found.splitlines(), "golden", "found", lineterm="", n=1)
    assert found == wanted, "\n".join(diff)
