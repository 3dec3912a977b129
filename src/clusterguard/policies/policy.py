"""A backup policy as it is meant: what is protected, how often, how long it is kept, where, and who hears of it.

Pure values. ``clusterguard.policies`` makes them from a file; paths in them are absolute or as the user's shell
would take them, and secrets are only ever named, never held.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

from clusterguard.policies.retention import RetentionPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Encryption",
    "EtcdSource",
    "Heartbeat",
    "Location",
    "Metrics",
    "Notification",
    "Occasion",
    "Policy",
    "Proof",
    "Schedule",
    "Secret",
    "Source",
    "VeleroSource",
    "Verification",
]

Occasion: TypeAlias = Literal["failure", "warning", "recovery", "success"]
"""When somebody is told: something failed; it counts but something is wrong; it works again; it worked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Where a secret is to be had: one of the two is set.

    Attributes:
        file: A file that holds it, and nothing else but space around it.
        env: An environment variable.
    """

    file: str = ""
    env: str = ""

    def __str__(self) -> str:
        return f"the file {self.file}" if self.file else f"the variable {self.env}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSource:
    """The etcd of one cluster.

    Attributes:
        name: What people call it; a folder of that name holds its snapshots in every location.
        cluster: The cluster, as ``--cluster`` takes it; empty where endpoints say where etcd is.
        kubeconfig: The file that ``context:`` looks in; empty for the usual one.
        node_shell: How to become root on the control-plane node, as ``--node-shell`` takes it; empty for none.
        endpoints: Client URLs of etcd; empty where the cluster tells them.
        ca: PEM file; empty for none, and so are the next two.
        cert: PEM file.
        key: PEM file.
        user: Where the user of etcd's own authentication is to be had; None for none, and so is the next one.
        password: Likewise, the password.
    """

    name: str
    cluster: str = ""
    kubeconfig: str = ""
    node_shell: str = ""
    endpoints: tuple[str, ...] = ()
    ca: str = ""
    cert: str = ""
    key: str = ""
    user: Secret | None = None
    password: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VeleroSource:
    """Namespaces of one cluster, by the Velero that runs in it.

    Attributes:
        name: What people call it; backups are called ``NAME-``, the time and the run.
        cluster: The cluster, as ``--cluster`` takes it.
        kubeconfig: The file that ``context:`` looks in; empty for the usual one.
        namespace: Velero's own.
        velero_location: The BackupStorageLocation; empty for the default one.
        bucket: The store at that location's bucket and prefix, as `open_store` takes it: it is read to verify
            the backup, and to copy it.
        included_namespaces: What is backed up; empty for all.
        excluded_namespaces: What is left out.
        selector: Label selector; empty for everything.
        volumes: How volumes are backed up: by snapshots, by their files, or not at all.
        timeout: How long a backup may take.
    """

    name: str
    cluster: str
    bucket: str
    kubeconfig: str = ""
    namespace: str = "velero"
    velero_location: str = ""
    included_namespaces: tuple[str, ...] = ()
    excluded_namespaces: tuple[str, ...] = ()
    selector: str = ""
    volumes: Literal["none", "snapshots", "fileSystem"] = "none"
    timeout: timedelta = timedelta(hours=4)


Source: TypeAlias = EtcdSource | VeleroSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a backup is due.

    Attributes:
        cron: Five fields.
        time_zone: An IANA name, such as ``Europe/Berlin``.
        grace: How long after a due time a backup counts as overdue.
    """

    cron: str
    time_zone: str = "UTC"
    grace: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A place for copies.

    Attributes:
        name: What people call it.
        url: As `open_store` takes it.
    """

    name: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """Who can read the copies: recipients, or who knows a passphrase.

    Attributes:
        recipients: Public keys of age or SSH; empty with a passphrase.
        recipients_file: A file with one public key a line, as ``age -R`` takes it; empty for none.
        passphrase: Where the passphrase is; None with recipients.
        identity: Where the private key is, for those who verify contents, restore and prove; None for those who only
            write. It is not needed with a passphrase.
    """

    recipients: tuple[str, ...] = ()
    recipients_file: str = ""
    passphrase: Secret | None = None
    identity: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How often the copies that lie there are read again.

    Attributes:
        every: A copy verified longer ago than this is due.
        per_run: How many a run reads in each location at most, the longest unread first.
    """

    every: timedelta = timedelta(days=7)
    per_run: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A drill that proves a source's newest backup, now and then.

    Attributes:
        name: What people call it.
        drill: The drill file.
        source: The source it proves.
        every: How long a proof is good for.
    """

    name: str
    drill: str
    source: str
    every: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Somebody who is told.

    Attributes:
        name: What people call the target: it appears in logs, its address does not.
        url: Where the address is: as apprise writes them, ``slack://…``, ``mailto://…``, ``json://…``.
        on: When.
    """

    name: str
    url: Secret
    on: tuple[Occasion, ...] = ("failure", "warning", "recovery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Where metrics go after each run.

    Attributes:
        textfile: A ``.prom`` file of a node exporter; empty for none.
        pushgateway: URL of a Pushgateway; empty for none.
    """

    textfile: str = ""
    pushgateway: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A dead man's switch: somebody else's clock, which alarms when this is not heard of in time.

    Attributes:
        url: Where its address is: ``/start`` and ``/fail`` are appended to it, as healthchecks.io has it.
    """

    url: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The whole policy.

    Attributes:
        name: What people call it.
        path: The file it was read from; empty for one that was made in a program.
        digest: SHA-256 of that file, in hexadecimal, for the audit trail.
        description: In words.
        labels: For people and their tools.
        sources: What is protected; at least one.
        schedule: When; None where somebody else decides.
        locations: Where the copies lie; at least one.
        copies: How many verified copies make a success.
        retention: How long backups are kept.
        encryption: Who can read them; None for everybody who can read the location.
        compression_level: Of zstd; None for no compression.
        verification: How often copies are read again.
        proofs: Which drills prove them.
        notifications: Who is told.
        metrics: Where metrics go.
        heartbeat: Who alarms when nothing is heard; None for nobody.
        scratch: Folder for databases on their way; empty for the default one of `scratch_folder`.
    """

    name: str
    sources: tuple[Source, ...]
    locations: tuple[Location, ...]
    copies: int
    path: str = ""
    digest: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    schedule: Schedule | None = None
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    encryption: Encryption | None = None
    compression_level: int | None = 3
    verification: Verification = field(default_factory=Verification)
    proofs: tuple[Proof, ...] = ()
    notifications: tuple[Notification, ...] = ()
    metrics: Metrics = field(default_factory=Metrics)
    heartbeat: Heartbeat | None = None
    scratch: str = ""

    def source(self, name: str) -> Source:
        """Return one source.

        Raises:
            KeyError: There is none of that name.
        """
        return {each.name: each for each in self.sources}[name]
