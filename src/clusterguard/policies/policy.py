"""A backup policy: what may be written in its file, and what it means: one model for both.

That names refer to something and that no two locations overlap is checked by ``files.load``. Paths come out of a file
absolute; secrets are only ever named, never held.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from clusterguard.documents import model as documents
from clusterguard.documents.model import REFERENCE_PATTERN, Cron, Duration, FindingName, Label, Selector, Text, wrong
from clusterguard.documents.schema import document_schema, schema_text
from clusterguard.documents.values import did_you_mean
from clusterguard.errors import ClusterGuardError, ConfigError
from clusterguard.policies.files.overlaps import resolve_url, storage_root
from clusterguard.policies.files.redaction import PRIVATE_KEY
from clusterguard.policies.schedule import check_cron, read_time_zone

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "POLICY_SCHEMA_URL",
    "Compression",
    "Encryption",
    "EtcdSource",
    "Heartbeat",
    "Location",
    "Metrics",
    "Notification",
    "NotifyOn",
    "Policy",
    "PolicyFile",
    "PolicySpec",
    "Proof",
    "RehearsalOptions",
    "RetentionPolicy",
    "Schedule",
    "Secret",
    "Source",
    "VeleroSource",
    "Verification",
    "policy_schema",
    "policy_schema_text",
]

NotifyOn: TypeAlias = Literal["failure", "warning", "recovery", "success"]
"""Something failed; the backup counts but something is wrong; it works again; it worked."""

POLICY_SCHEMA_URL: Final = "https://clusterguard.dev/schemas/policy-v1alpha1.json"

_UNITS: Final = {
    "": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50,
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
}  # fmt: skip
_SIZE: Final = re.compile(r"([0-9]{1,15})([KMGTP]i|[kMGTP]|)")
_SIZE_PATTERN: Final = rf"^([0-9]{{1,15}}([KMGTP]i|[kMGTP])?{REFERENCE_PATTERN})$"
_RECIPIENT: Final = re.compile(r"age1[0-9a-z]{8,4000}|ssh-(ed25519|rsa) [A-Za-z0-9+/=]{40,}( [^\n]*)?")
_CLUSTERS: Final = ("context", "kubeconfig", "kind", "embedded")
_RULES: Final = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def _size(written: object) -> int:
    match = _SIZE.fullmatch(str(written)) if isinstance(written, (str, int)) and not isinstance(written, bool) else None
    if match is None:
        raise ValueError("a size is expected here, such as 500Gi, 2Ti or 800M")
    return int(match[1]) * _UNITS[match[2]]


def _file_with_a_secret(text: str) -> str:
    if not text or not text.isprintable() or "://" in text or PRIVATE_KEY.search(text):
        raise ValueError("the path of a file is expected here, not what is in it")
    return text


def _recipient(text: str) -> str:
    if PRIVATE_KEY.search(text):
        raise ValueError(
            "this is a private key: whoever reads the policy could read the backups. Write its public key here"
            " (age-keygen -y), and use a new pair: this one may have been seen"
        )
    if not _RECIPIENT.fullmatch(text):
        raise ValueError("a recipient is expected here: age1…, or a public key of SSH (ssh-ed25519 or ssh-rsa)")
    return text


def _cluster(text: str) -> str:
    provider, _, rest = text.partition(":")
    if provider not in _CLUSTERS:
        near = did_you_mean(provider, _CLUSTERS) or f"; for a context of the kubeconfig write context:{text}"
        raise ValueError(f"`{text}` is not a valid cluster reference{near}")
    if not rest:
        form = f"{provider}:{'PATH' if provider == 'kubeconfig' else 'NAME'}"
        raise ValueError(f"`{text}` is not a valid cluster reference; write {form}")
    return text


def _http_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", text):
        raise ValueError("a URL is expected here, such as http://pushgateway:9091")
    if "@" in text:
        raise ValueError("the URL must not contain a user or a password: it appears in logs")
    return text


def _kubernetes_version(text: str) -> str:
    from clusterguard.rehearsal.versions import requested_api_server  # slow, and few policies name one

    try:
        requested_api_server(text)
    except ConfigError as error:
        raise ValueError(f"a minor version of Kubernetes is expected here, such as v1.34: {error.hint}") from error
    return text


def _matching(pattern: str, message: str) -> AfterValidator:
    """Refuse a text that does not match; it is not repeated, since it may be a secret."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(message)
        return text

    return AfterValidator(check)


def _directory(info: ValidationInfo) -> Path | None:
    return info.context["directory"] if info.context else None


def _absolute(text: str, info: ValidationInfo) -> str:
    directory = _directory(info)
    # Not resolved: a link is followed as it points when the file is read.
    return os.path.normpath(directory / Path(text).expanduser()) if directory else text


def _cluster_with_path(text: str, info: ValidationInfo) -> str:
    provider, _, rest = text.partition(":")
    return f"{provider}:{_absolute(rest, info)}" if provider == "kubeconfig" else text


def _store(url: str, info: ValidationInfo) -> str:
    directory = _directory(info)
    if directory is None:
        return url
    absolute = resolve_url(url, directory)
    try:
        storage_root(absolute)
    except ClusterGuardError as error:
        raise ValueError(f"{error.message}{f'; {error.hint}' if error.hint else ''}") from error
    return absolute


def _share(text: str) -> str:
    from clusterguard.velero.volume_data import parse_share

    parse_share(text)
    return text


def _time_zone(name: str) -> str:
    return read_time_zone(name).key


Size: TypeAlias = Annotated[
    int,
    PlainValidator(_size),
    PlainSerializer(str),
    WithJsonSchema({
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _SIZE_PATTERN}],
        "examples": ["500Gi"],
    }),
]  # fmt: skip
Variable: TypeAlias = Annotated[
    str,
    _matching(
        r"[A-Za-z_][A-Za-z0-9_]*",
        "the name of a variable is expected here, such as BACKUP_PASSPHRASE; not what is in it",
    ),
    Field(examples=["BACKUP_PASSPHRASE"]),
]
File: TypeAlias = Annotated[Text, AfterValidator(_absolute)]
SecretFile: TypeAlias = Annotated[str, AfterValidator(_file_with_a_secret), AfterValidator(_absolute)]
Recipient: TypeAlias = Annotated[str, AfterValidator(_recipient)]
Cluster: TypeAlias = Annotated[
    Text,
    AfterValidator(_cluster),
    AfterValidator(_cluster_with_path),
    Field(examples=["context:production", "kubeconfig:/etc/kubernetes/admin.conf"]),
]
NodeShell: TypeAlias = Annotated[
    Text,
    _matching(
        r"(local|docker:[^\s:]+|ssh:\S+)(\s+(local|docker:[^\s:]+|ssh:\S+))*",
        "invalid node; write local, docker:NAME or ssh:[USER@]HOST, several with blanks between them",
    ),
    Field(examples=["local", "ssh:root@cp-1", "ssh:root@{cp-1,cp-2,cp-3}"]),
]
HttpUrl: TypeAlias = Annotated[Text, AfterValidator(_http_url)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=100_000)]
Bucket: TypeAlias = Annotated[
    Text, AfterValidator(_store), Field(examples=["s3://bucket/prefix?region=eu-west-1", "./backups"])
]


class Model(documents.Model):
    """What all parts of a policy share: a program names fields as Python does, a file by their aliases alone."""

    model_config = ConfigDict(validate_by_name=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Where a secret is: a file that holds nothing else but space around it, or an environment variable."""

    file: str = ""
    env: str = ""

    @classmethod
    def named(cls, file: str, env: str) -> Secret | None:
        """Return where a secret is, or None where neither is given."""
        return cls(file=file, env=env) if file or env else None

    def __str__(self) -> str:
        return f"the file {self.file}" if self.file else f"the variable {self.env}"


class Metadata(Model):
    """What the policy is called."""

    name: Label
    """The policy's name; a folder of that name holds its backups in every location."""
    labels: dict[str, str] = Field(default_factory=dict)
    """For people and their tools."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Remarks; they change nothing."""


class Schedule(Model):
    """When a backup is due."""

    cron: Annotated[Cron, AfterValidator(check_cron)]
    """Five fields that cron and Kubernetes both take, such as `30 2 * * *`."""
    time_zone: Annotated[Text, AfterValidator(_time_zone)] = "UTC"
    """An IANA name, such as `Europe/Berlin`."""
    grace: Duration = timedelta(hours=1)
    """How long after a due time a backup counts as overdue."""


class EtcdSource(Model):
    """The etcd of one cluster: found through the cluster, or by its endpoints."""

    cluster: Cluster = ""
    """The cluster: `context:NAME`, `kubeconfig:PATH`, `kind:NAME` or `embedded:NAME`."""
    kubeconfig: File = ""
    """The file that `context:` looks in; the usual one when left out."""
    node_shell: NodeShell = ""
    """How to become root on the control-plane node: `local`, `docker:NAME` or `ssh:[USER@]HOST`."""
    endpoints: tuple[HttpUrl, ...] = ()
    """Client URLs of etcd, such as `https://127.0.0.1:2379`; the cluster tells them when left out."""
    ca_file: File = ""
    """etcd's CA, a PEM file."""
    cert_file: File = ""
    """The client certificate, a PEM file."""
    key_file: SecretFile = ""
    """Its key, a PEM file."""
    user_env: Variable = ""
    """A variable with the user, where etcd's authentication is on; it needs the role `root`."""
    password_env: Variable = ""
    """A variable with the password."""

    @model_validator(mode="after")
    def _reachable(self) -> EtcdSource:
        if not self.cluster and not self.endpoints:
            raise wrong("one of `cluster` or `endpoints` is needed")
        if bool(self.cert_file) != bool(self.key_file):
            raise wrong("a client certificate needs its key: give both `certFile` and `keyFile`")
        if bool(self.user_env) != bool(self.password_env):
            raise wrong("a user needs a password: give both `userEnv` and `passwordEnv`")
        if not self.endpoints and self.given("ca_file", "cert_file"):
            raise wrong("certificates need `endpoints`")
        _check_kubeconfig(self.cluster, self.kubeconfig)
        if self.node_shell and not self.cluster:
            raise wrong("`nodeShell` needs a `cluster`", key="nodeShell")
        return self

    @property
    def tls_files(self) -> tuple[str, ...]:
        """CA, client certificate and key, as far as they are given."""
        return tuple(filter(None, (self.ca_file, self.cert_file, self.key_file)))

    @property
    def user(self) -> Secret | None:
        """Where etcd's user is; None where its authentication is off."""
        return Secret.named("", self.user_env)

    @property
    def password(self) -> Secret | None:
        """Where the password is."""
        return Secret.named("", self.password_env)


class VeleroSource(Model):
    """Namespaces of one cluster, by the Velero that runs in it."""

    cluster: Cluster
    """The cluster: `context:NAME`, `kubeconfig:PATH`, `kind:NAME` or `embedded:NAME`."""
    kubeconfig: File = ""
    """The file that `context:` looks in; the usual one when left out."""
    namespace: Label = "velero"
    """Velero's own namespace."""
    location: Label = ""
    """The BackupStorageLocation; the default one when left out."""
    bucket: Bucket
    """The store that this location is in, with its prefix: it is read to verify the backup, and to copy it."""
    included_namespaces: tuple[Label, ...] = ()
    """What is backed up; all namespaces when left out."""
    excluded_namespaces: tuple[Label, ...] = ()
    """What is left out."""
    selector: Selector = ""
    """Only objects with these labels."""
    cluster_scoped: bool | SkipJsonSchema[None] = None
    """true: all cluster-scoped objects; false: none, not even the Namespaces; left out: those that the included
    namespaces need, and all where none is included."""
    tolerate: tuple[FindingName, ...] = ()
    """Findings of a backup's outcome that do not count, by name, such as `api-unavailable`."""
    volumes: Literal["none", "snapshots", "move", "fileSystem"] = "none"
    """`snapshots` of volumes, which stay where they are; snapshots whose data is put into the bucket (`move`), or the
    files in volumes (`fileSystem`), both of which are verified and copied; `none` when left out."""
    read_data: Annotated[Text, AfterValidator(_share)] = Field(default="5%", examples=["5%", "all"])
    """How much of the data of volumes is decrypted and compared with its hashes at each look: a share, or `all`."""
    repository_password_file: SecretFile = ""
    """A file with the password of the repositories that the data of volumes is in; Velero's own when left out."""
    repository_password_env: Variable = ""
    """A variable with that password."""
    timeout: Duration = timedelta(hours=4)
    """How long a backup may take."""

    @model_validator(mode="after")
    def _sensible(self) -> VeleroSource:
        _check_kubeconfig(self.cluster, self.kubeconfig)
        self.need_one("repository_password_file", "repository_password_env", optional=True)
        both = sorted(set(self.included_namespaces) & set(self.excluded_namespaces))
        if both:
            raise wrong(f"`{both[0]}` is both included and excluded", key="excludedNamespaces")
        return self

    @property
    def data_in_bucket(self) -> bool:
        """Whether the data of volumes is in the bucket, in repositories beside the backup."""
        return self.volumes in {"move", "fileSystem"}

    @property
    def repository_password(self) -> Secret | None:
        """Where the password of these repositories is; None for Velero's own."""
        return Secret.named(self.repository_password_file, self.repository_password_env)


def _check_kubeconfig(cluster: str, kubeconfig: str) -> None:
    if kubeconfig and not cluster.startswith("context:"):
        raise wrong("`kubeconfig` needs a cluster of the form `context:NAME`", key="kubeconfig")


class Source(Model):
    """One thing that is protected."""

    name: Label
    """What it is called; a folder of that name holds its backups."""
    etcd: EtcdSource | SkipJsonSchema[None] = None
    """The whole state of a cluster, from its etcd."""
    velero: VeleroSource | SkipJsonSchema[None] = None
    """Namespaces of a cluster, by Velero."""

    @model_validator(mode="after")
    def _one_engine(self) -> Source:
        self.need_one("etcd", "velero")
        return self

    @property
    def engine(self) -> EtcdSource | VeleroSource:
        """The one of the two that is given."""
        given = self.etcd or self.velero
        assert given is not None  # noqa: S101 - for the type checker: one of them is needed
        return given


class Location(Model):
    """A place for copies."""

    name: Label
    """What it is called."""
    url: Bucket
    """A bucket, or a folder on this machine."""


class RetentionPolicy(Model):
    """How long backups are kept. Rules keep, limits remove; without any rule everything is kept."""

    last: Count | SkipJsonSchema[None] = None
    """The newest so many, whenever they were made."""
    hourly: Count | SkipJsonSchema[None] = None
    """The newest of each of so many hours that have one."""
    daily: Count | SkipJsonSchema[None] = None
    """Likewise for days, in the schedule's time zone."""
    weekly: Count | SkipJsonSchema[None] = None
    """Likewise for weeks, which begin on Monday."""
    monthly: Count | SkipJsonSchema[None] = None
    """Likewise for months."""
    yearly: Count | SkipJsonSchema[None] = None
    """Likewise for years."""
    maximum_age: Duration | SkipJsonSchema[None] = None
    """Older ones go, whatever keeps them."""
    maximum_bytes: Size | SkipJsonSchema[None] = None
    """The oldest go until the rest takes up no more, in each location."""

    @model_validator(mode="after")
    def _keeps_something(self) -> RetentionPolicy:
        if self.rules and not any(self.rules.values()):
            raise wrong("every rule keeps nothing, so every backup would be removed")
        if self.maximum_age is not None and self.maximum_age <= timedelta(0):
            raise wrong(f"a maximum age of {self.maximum_age} would remove every backup")
        if self.maximum_bytes == 0:
            raise wrong("`maximumBytes` must be at least 1")
        return self

    @property
    def rules(self) -> Mapping[str, int]:
        """The rules that are set, by their names."""
        given = {name: getattr(self, name) for name in _RULES}
        return {name: count for name, count in given.items() if count is not None}


class Encryption(Model):
    """Who can read the copies. Secrets are named here, never held."""

    recipients: tuple[Recipient, ...] = ()
    """Public keys: of age (`age1…`) or of SSH."""
    recipients_file: File = ""
    """A file with one public key a line, as `age -R` takes it."""
    passphrase_file: SecretFile = ""
    """A file with a passphrase, in place of recipients."""
    passphrase_env: Variable = ""
    """A variable with the passphrase."""
    identity_file: SecretFile = ""
    """A file with the private key, for those who verify contents, restore and prove."""
    identity_env: Variable = ""
    """A variable with the private key."""

    @model_validator(mode="after")
    def _sensible(self) -> Encryption:
        self.need_one("passphrase_file", "passphrase_env", optional=True)
        self.need_one("identity_file", "identity_env", optional=True)
        readers = self.given("recipients", "recipients_file")
        passphrase = self.given("passphrase_file", "passphrase_env")
        if readers and passphrase:
            raise wrong(f"`{self.written(readers[0])}` and `{self.written(passphrase[0])}` exclude each other")
        if not readers and not passphrase:
            raise wrong("one of `recipients`, `recipientsFile`, `passphraseFile` or `passphraseEnv` is needed")
        if passphrase and self.given("identity_file", "identity_env"):
            raise wrong("a passphrase opens what it closed; an identity is for recipients")
        return self

    @property
    def passphrase(self) -> Secret | None:
        """Where the passphrase is; None with recipients."""
        return Secret.named(self.passphrase_file, self.passphrase_env)

    @property
    def identity(self) -> Secret | None:
        """Where the private key is; None on machines that only write, and with a passphrase."""
        return Secret.named(self.identity_file, self.identity_env)


class Compression(Model):
    """Compression by zstd, before encryption."""

    level: Annotated[int, Field(ge=1, le=19)] = 3
    """1 is fastest, 19 smallest."""


def _compression_form(value: object) -> str | None:
    if isinstance(value, str):
        return "none"
    return "zstd" if isinstance(value, (dict, Compression)) else None


class Verification(Model):
    """How often the copies that lie there are read again."""

    every: Duration = timedelta(days=7)
    """A copy verified longer ago than this is due."""
    per_run: Annotated[int, Field(ge=1, le=100_000)] = 10
    """How many a run reads at most, the longest unread first."""


class RehearsalOptions(Model):
    """How the newest snapshot of a source is rehearsed; `{}` will do for most."""

    encryption_config: SecretFile = ""
    """The EncryptionConfiguration of the cluster's API server, where it encrypts Secrets at rest."""
    prefix: Text = "/registry"
    """Of etcd's keys; OpenShift has `/kubernetes.io`."""
    kubernetes_version: Annotated[str, AfterValidator(_kubernetes_version), Field(examples=["v1.34"])] = ""
    """The minor version to rehearse on; by default the cluster's own, or the nearest one that is installed."""


class Proof(Model):
    """How it is proven, now and then, that a source's newest backup restores: by a rehearsal, or by a drill."""

    name: Label
    """What it is called."""
    rehearse: RehearsalOptions | SkipJsonSchema[None] = None
    """Restore it into a throwaway control plane, and compare every object in it."""
    drill: File = ""
    """A drill file, with a `storedBackup` of the source."""
    source: Label
    """The source whose backup it restores."""
    every: Duration
    """How long a proof is good for."""

    @model_validator(mode="after")
    def _one_way(self) -> Proof:
        self.need_one("rehearse", "drill")
        return self


class _Addressed(Model):
    """Something with an address that is a secret: it is named here, never held."""

    url_file: SecretFile = ""
    """A file with its address, and nothing else."""
    url_env: Variable = ""
    """A variable with the address."""

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        self.need_one("url_file", "url_env")
        return self

    @property
    def url(self) -> Secret:
        """Where the address is."""
        return Secret(file=self.url_file, env=self.url_env)


class Notification(_Addressed):
    """A recipient of messages, at an address as apprise writes it: `slack://…`, `mailto://…`, `json://…`."""

    name: Label
    """What the target is called in logs."""
    on: Annotated[tuple[NotifyOn, ...], Field(min_length=1)] = ("failure", "warning", "recovery")
    """When."""


class Metrics(Model):
    """Where metrics go after each run."""

    textfile: Annotated[File, _matching(r".+\.prom", "a node exporter reads only files that end in .prom")] = ""
    """A `.prom` file in a node exporter's textfile directory."""
    pushgateway: HttpUrl = ""
    """URL of a Pushgateway."""


class Heartbeat(_Addressed):
    """A dead man's switch, which alarms when no ping arrives in time; `/start` and `/fail` are appended to its URL."""


class PolicySpec(Model):
    """What is protected, how often, how long it is kept, where, and who hears of it."""

    description: str = ""
    """One sentence for people."""
    schedule: Schedule | SkipJsonSchema[None] = None
    """When a backup is due; left out where somebody else decides."""
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """What is protected."""
    locations: Annotated[tuple[Location, ...], Field(min_length=1)]
    """Where the copies lie."""
    copies: Annotated[int, Field(ge=1)] = Field(default_factory=lambda given: len(given.get("locations", "?")))
    """How many verified copies make a success; one in every location when left out."""
    retention: RetentionPolicy = Field(default_factory=RetentionPolicy)
    """How long backups are kept; for ever when left out."""
    encryption: Encryption | SkipJsonSchema[None] = None
    """Who can read the copies; everybody who can read the location when left out."""
    compression: Annotated[
        Annotated[Literal["none"], Tag("none")] | Annotated[Compression, Tag("zstd")],
        Discriminator(_compression_form),
    ] = Field(default_factory=Compression)
    """zstd before encryption, or `none`; nothing can be compressed after it."""
    verification: Verification = Field(default_factory=Verification)
    """How often the copies that lie there are read again."""
    proofs: tuple[Proof, ...] = ()
    """Rehearsals and drills that prove that a backup restores."""
    notifications: tuple[Notification, ...] = ()
    """Who is notified."""
    metrics: Metrics = Field(default_factory=Metrics)
    """Where metrics go after each run."""
    heartbeat: Heartbeat | SkipJsonSchema[None] = None
    """Who alarms when nothing is heard."""
    scratch: File = ""
    """A folder with room for a whole database while it is saved or verified; `TMPDIR` or `/var/tmp` when left out."""


class Policy(PolicySpec):
    """A whole policy, as it was read from a file or made in a program."""

    name: Label
    """What people call it."""
    labels: dict[str, str] = Field(default_factory=dict)
    """For people and their tools."""
    path: str = ""
    """The file it was read from; empty for one that was made in a program."""
    digest: str = ""
    """SHA-256 of that file, in hexadecimal, for the audit trail."""

    @property
    def compression_level(self) -> int | None:
        """Of zstd; None for no compression."""
        return self.compression.level if isinstance(self.compression, Compression) else None

    @property
    def addresses(self) -> tuple[Secret, ...]:
        """Where the addresses of those who hear of a run are."""
        return (*(each.url for each in self.notifications), *([self.heartbeat.url] if self.heartbeat else []))

    def source(self, name: str) -> Source:
        """Return one source."""
        return {each.name: each for each in self.sources}[name]


class PolicyFile(Model):
    """A backup policy: what is protected, how often, how long it is kept, where, and who hears of it."""

    api_version: Literal["clusterguard.dev/v1alpha1"]
    """The version of this format."""
    kind: Literal["BackupPolicy"]
    """Always BackupPolicy."""
    metadata: Metadata
    """What the policy is called."""
    spec: PolicySpec
    """What happens."""


def policy_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of policy files, for editors and for checks outside of Python.

    It knows the shape only; `load_policy` knows the rest.
    """
    return document_schema(PolicyFile, url=POLICY_SCHEMA_URL, title="clusterguard backup policy")


def policy_schema_text() -> str:
    """Return the JSON Schema as the text that is published."""
    return schema_text(policy_schema())
