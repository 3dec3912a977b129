"""The world that a fault strikes: real etcd, a real S3 server, two folders, four nights of backups, and one policy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from injector import BALLAST, Plan

from clusterguard.clusters.base import EtcdAccess
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.policies import PolicyRunner, load_policy
from clusterguard.stores import open_store
from s3_gateway import BUCKET, CREDENTIALS

LOCATIONS = ("disk", "s3", "nas")
CANARY_KEY = "/registry/secrets/default/canary"
CANARY = b"the-canary-that-no-disk-may-hold:" + uuid.uuid4().hex.encode()
KEPT, WANTED = 3, 2  # of each location's backups, and copies of each backup
NIGHTS = (80, 60, 40, 20)  # minutes ago: less than a step of the clock, so that a step puts them into another order
PLAIN = ("first", "second")
LATE = "nas"  # the location that lacks the last night's copy


@dataclass(frozen=True)
class Copy:
    """One backup in one location, as its files tell it: nothing of clusterguard's own reading is used."""

    name: str
    created: datetime
    whole: bool
    digest: str


@dataclass(frozen=True)
class Services:
    """What all worlds of a session share.

    ``bucket`` is the folder under which the S3 server keeps its objects; ``s3`` and ``etcd`` are the proxies in front
    of the two servers; ``small`` is a disk of a few megabytes, or None where nobody may mount one.
    """

    member: object
    gateway: object
    s3: object
    etcd: object
    zygote: object
    keys: Path
    small: Path | None = None

    @property
    def bucket(self):
        return self.gateway.directory / BUCKET

    def calm(self):
        self.s3.decide = lambda _: None
        self.etcd.set()
        if self.small:
            (self.small / BALLAST).unlink(missing_ok=True)


def environment(folder):
    """Return the variables of a command in a world: every folder that it may leave something in is the world's own."""
    own = {name: str(folder / name.lower()) for name in ("TMPDIR", "XDG_STATE_HOME", "HOME")}
    for path in own.values():
        Path(path).mkdir(parents=True, exist_ok=True)
    kept = {
        name: value for name, value in os.environ.items() if name.startswith(("CLUSTERGUARD_", "PATH", "XDG_CACHE"))
    }
    return {
        "XDG_CACHE_HOME": str(Path.home() / ".cache"),
        **kept,
        **own,
        "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key,
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_key,
        "AWS_REGION": "us-east-1",
        "COLUMNS": "200",
        "LANG": "C.UTF-8",
    }


def write_policy(path, *, endpoint, bucket, keys, disk="./disk"):
    document = {"apiVersion": "clusterguard.dev/v1alpha1", "kind": "BackupPolicy", "metadata": {"name": "nightly"}}
    document["spec"] = {
        "sources": [{"name": "etcd", "etcd": {"endpoints": [endpoint]}}],
        "locations": [
            {"name": "disk", "url": disk},
            {"name": "s3", "url": bucket},
            {"name": "nas", "url": "./nas"},
        ],
        "copies": WANTED,
        "retention": {"last": KEPT},
        "encryption": {
            "recipientsFile": str(keys / "recipients.txt"),
            "identityFile": str(keys / "identity.txt"),
        },
        "verification": {"every": "10m"},
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def bucket_url(endpoint, prefix):
    return f"s3://{BUCKET}/{prefix}?endpoint={endpoint}&pathStyle=true&region=us-east-1"


class World:
    """One cell's own copy of everything, and the commands that run in it."""

    def __init__(self, services, folder, *, on_small_disk=False):
        self.services = services
        self.folder = folder
        self.prefix = f"cell-{uuid.uuid4().hex[:12]}"
        self.disk = services.small / self.prefix / "disk" if on_small_disk else folder / "disk"
        self._started = []
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, services, template, folder, **options):
        """Return a world that begins as the template is."""
        world = cls(services, folder, **options)
        for where in LOCATIONS:
            shutil.copytree(template.root(where), world.root(where))
        world.write_policy()
        return world

    def root(self, where):
        return {"disk": self.disk, "nas": self.folder / "nas", "s3": self.services.bucket / self.prefix}[where]

    def write_policy(self):
        bucket = bucket_url(self.services.s3.endpoint, self.prefix)
        options = {"bucket": bucket, "keys": self.services.keys, "disk": str(self.disk)}
        self.policy = write_policy(self.folder / "policy.yaml", endpoint=self.services.etcd.endpoint, **options)

    def store(self, where):
        """Return how the command line names the plain snapshots' store."""
        return bucket_url(self.services.s3.endpoint, self.prefix) if where == "s3" else str(self.root(where))

    def start(self, *argv, plan=None, **environ):
        command = self.services.zygote.start(
            argv,
            folder=self.folder / f"command-{len(self._started)}",
            cwd=self.folder,
            env=environment(self.folder) | environ,
            plan=plan or Plan(),
        )
        self._started.append(command)
        return command

    def run(self, *argv, **options):
        command = self.start(*argv, **options)
        command.wait()
        return command

    def close(self):
        for command in self._started:
            command.close()
        for where in LOCATIONS:
            shutil.rmtree(self.root(where), ignore_errors=True)

    # ---- what lies there -------------------------------------------------------------------------------------

    def copies(self, where, *, plain=False):
        """Return every backup that has a record in a location, by its name."""
        folder = self.root(where) if plain else self.root(where) / "nightly" / "etcd"
        records = sorted(folder.glob("*.json")) if folder.is_dir() else []
        return {copy.name: copy for copy in map(read_copy, records)}

    def catalog(self, where):
        """Return what a catalog says; one that a lying location keeps says nothing, as to any run."""
        path = self.root(where) / "nightly" / ".clusterguard" / "catalog.json"
        try:
            return json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return {"entries": []}


def read_copy(path):
    """Read a record and the bytes that it is about, as anybody could with a JSON reader and sha256sum."""
    try:
        record = json.loads(path.read_text())
        extra = record.get("extra", record)
        key, wanted = extra.get("stored_key", record["key"]), extra.get("stored_sha256", record["sha256"])
        created = datetime.fromisoformat(record["taken"])
    except (ValueError, KeyError):
        return Copy(name=path.stem, created=datetime.min.replace(tzinfo=UTC), whole=False, digest="")
    data = path.parent / key
    digest = hashlib.sha256(data.read_bytes()).hexdigest() if data.is_file() else ""
    return Copy(name=path.stem, created=created, whole=digest == wanted, digest=digest)


def build_template(services, folder, patch):
    """Make four nights of backups by real runs, each at its time, and two plain snapshots.

    ``patch`` is a monkeypatch: what runs in this process finds the credentials in its environment while it makes them.
    """
    world = World(services, folder)
    environ = environment(folder)
    for name, value in environ.items():
        if name.startswith("AWS_"):
            patch.setenv(name, value)
    endpoint, bucket = services.member.endpoint, bucket_url(services.gateway.endpoint, world.prefix)
    path = write_policy(folder / "policy.yaml", endpoint=endpoint, bucket=bucket, keys=services.keys)
    policy = load_policy(path, environ=environ)
    for minutes in NIGHTS:
        moment = datetime.now(UTC) - timedelta(minutes=minutes)
        report = PolicyRunner(policy=policy, environ=environ, now=lambda moment=moment: moment).run(["backup"])
        assert report.outcome == "ok", [str(step) for step in report.steps]
    access = EtcdAccess(endpoints=(endpoint,))
    for where in ("disk", "s3"):
        for name in PLAIN:
            store = open_store(bucket if where == "s3" else world.root(where))
            EtcdSnapshotter(store=store, access=access).save(name)
    _lose_the_last_night(world)
    return world


def _lose_the_last_night(world):
    root = world.root(LATE) / "nightly"
    last = max(world.copies(LATE))
    for path in (root / "etcd").glob(f"{last}.*"):
        path.unlink()
    catalog = root / ".clusterguard" / "catalog.json"
    document = json.loads(catalog.read_text())
    document["entries"] = [each for each in document["entries"] if each["name"] != last]
    catalog.write_text(json.dumps(document))
