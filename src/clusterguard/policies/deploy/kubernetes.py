"""A policy as objects of Kubernetes: one CronJob for each thing that is due by a clock of its own.

What a pod may do follows from what the policy names, and there are no switches for it:

- A file of etcd's certificates below `ETCD_FOLDER` comes from a Secret; any other path is a file of the control-plane
  node, mounted alone and read-only. Only then does the pod run there, and as root, since kubeadm keeps keys for root.
- A secret of the policy below `SECRETS_FOLDER`, or in a variable, comes from one Secret, key by key: a pod that writes
  backups never has the key that opens them, and reads a policy that does not name it.
- A Velero source whose cluster is `IN_CLUSTER` is asked with the rights of the backup's ServiceAccount; nothing else
  here has rights at the API server, or a token for it.

Backups, verifications and proofs use the credentials of the writer, which delete nothing; only retention has the
keeper's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args
from urllib.parse import unquote, urlsplit

from clusterguard.documents.interpolation import references
from clusterguard.documents.reading import only_document
from clusterguard.documents.writing import yaml_text
from clusterguard.documents.yamlfile import read_source
from clusterguard.errors import ConfigError
from clusterguard.policies.deploy.pods import (
    SECRETS_FOLDER,
    USER,
    below,
    config_map,
    config_volume,
    credentials_variable,
    drill_files,
    drill_secrets,
    files_beside,
    pod,
    scratch_volumes,
    secret_key,
    secret_volume,
    storage_volumes,
    volume,
)
from clusterguard.policies.deploy.templates import fill
from clusterguard.policies.policy import Secret
from clusterguard.sockets import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.policies.deploy.pods import Json, Mounted
    from clusterguard.policies.policy import EtcdSource, Policy, VeleroSource

__all__ = ["ETCD_FOLDER", "IN_CLUSTER", "CronJobOptions", "Group", "cronjob_manifests", "policy_files", "velero_rules"]

Group: TypeAlias = Literal["backup", "retain", "verify", "prove"]
"""A CronJob; also the step that it runs."""

ETCD_FOLDER: Final = "/etc/clusterguard/etcd"
"""Where pods find a client certificate of etcd that a Secret holds."""
IN_CLUSTER: Final = "kubeconfig:/etc/clusterguard/in-cluster/kubeconfig"
"""How a policy names the cluster that its CronJobs run in."""

_CONFIG_FOLDER: Final = "/etc/clusterguard/policy"
_POLICY_KEY: Final = "policy.yaml"
_WRITING_KEY: Final = "policy-for-writing.yaml"
_CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
_LONGEST_CRONJOB: Final = 52  # characters: Kubernetes appends eleven for the names of its Jobs
_LITERAL_KEYS: Final = frozenset({"on"})  # a boolean in YAML 1.1, and a key of notifications
_WAIT: Final = "1h"  # for the lock, which another CronJob's run may hold: that is over long before this one's time is
_OPENERS: Final = ("verify", "prove")  # what looks into backups, and needs the key for it
_ONCE_A_DAY: Final = MappingProxyType({"retain": "23 3 * * *", "verify": "43 4 * * *", "prove": "13 5 * * *"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CronJobOptions:
    """What Kubernetes needs to know besides the policy.

    Attributes:
        schedules: When retention, verification and proofs run: five fields, in the policy's time zone. What is due
            then the policy says; backups follow its own schedule.
        writer_secret: Holds ``credentials`` of who writes and reads backups; empty where pods have an identity
            without them.
        keeper_secret: Holds ``credentials`` of who may also delete; empty likewise.
        secrets: Holds what the policy calls secrets: one key for each variable, and for each file by its name.
        etcd_secret: Holds etcd's client certificate where the policy looks for it below `ETCD_FOLDER`.
        claims: PersistentVolumeClaims by the path that they are mounted at, for locations that are folders.
        scratch: The most that a run may write to its own disk: what is verified by its contents lies there, whole.
    """

    namespace: str = "clusterguard"  # of everything but a Role in Velero's
    image: str = "clusterguard:latest"  # the image of clusterguard; one of a registry that the nodes reach
    schedules: Mapping[str, str] = field(default_factory=lambda: _ONCE_A_DAY)
    writer_secret: str = "clusterguard-writer"  # noqa: S105 - a name
    keeper_secret: str = "clusterguard-keeper"  # noqa: S105 - a name
    secrets: str = "clusterguard-secrets"
    etcd_secret: str = "clusterguard-etcd"  # noqa: S105 - a name
    claims: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    longest: timedelta = timedelta(hours=4)  # how long one run may take
    kept: timedelta = timedelta(days=7)  # how long finished Jobs are kept
    scratch: str = "10Gi"

    def __post_init__(self) -> None:
        """Refuse schedules of unknown CronJobs."""
        known = set(get_args(Group)) - {"backup"}
        if unknown := set(self.schedules) - known:
            raise ConfigError(
                f"no CronJob {', '.join(sorted(unknown))} has a schedule of its own",
                hint=f"schedules are of {', '.join(sorted(known))}; backups follow the policy's schedule",
            )


def cronjob_manifests(policy: Policy, *, options: CronJobOptions) -> tuple[Json, ...]:
    """Return everything that runs a policy in Kubernetes, but for the Secrets, in an order that can be applied.

    Files that the policy names are read.

    Raises:
        ConfigError: A pod could not do what the policy says; the message says what to change.
    """
    return tuple(_Manifests(policy, options, policy_files(policy)).all())


def policy_files(policy: Policy) -> Mapping[str, str]:
    """Return the policy's file, those that it names and those that its drills apply, by path from the policy's folder.

    Where the policy names the key that opens backups, there is a second one without it, for those who only write.

    Raises:
        ConfigError: One is not below that folder, cannot be read, or all are too large for a ConfigMap.
    """
    if not policy.path:
        raise ConfigError("this policy was made in a program and has no file", hint="write it to a file and load it")
    path = Path(policy.path).absolute()
    named = [*drill_files(_drills_of(policy))]
    if policy.encryption is not None and policy.encryption.recipients_file:
        named.append(path.parent / policy.encryption.recipients_file)
    files = files_beside(path, name=_POLICY_KEY, named=(file for file in named if not below(str(file), SECRETS_FOLDER)))
    return {**files, _WRITING_KEY: _without_identity(path)} if _names_identity(policy) else files


def velero_rules() -> list[Json]:
    """Return the rights, in Velero's namespace, that a backup by Velero takes: what `VeleroClient` asks for then."""
    rules: list[Json] = fill("velero rules")
    return rules


class _Manifests:
    def __init__(self, policy: Policy, options: CronJobOptions, files: Mapping[str, str]) -> None:
        if policy.schedule is None:
            raise ConfigError(f"policy {policy.name} has no schedule", hint="spec.schedule says when backups are due")
        self.policy = policy
        self.schedule = policy.schedule
        self.options = options
        self.files = files
        self.etcd = {source.name: source.etcd for source in policy.sources if source.etcd}
        self.velero = {source.name: source.velero for source in policy.sources if source.velero}
        _require_runnable(policy, options, files[_POLICY_KEY])
        # The files of the control-plane node that backups need.
        tls_files = {file for source in self.etcd.values() for file in source.tls_files}
        self.node_files = sorted(file for file in tls_files if not below(file, ETCD_FOLDER))
        self.takes_etcd_secret = any(below(file, ETCD_FOLDER) for file in tls_files)
        # The node's loopback is reached by the node's network alone.
        self.on_node_network = any(is_loopback(each) for source in self.etcd.values() for each in source.endpoints)
        self.velero_namespaces = sorted({each.namespace for each in self.velero.values() if each.cluster == IN_CLUSTER})
        self.config_name = f"{policy.name}-policy"

    def all(self) -> Iterator[Json]:
        groups: tuple[Group, ...] = get_args(Group) if self.policy.proofs else ("backup", "retain", "verify")
        # Pods that have files or the network of their node are only let in as privileged; the others are all
        # restricted, and whoever takes etcd's certificate from a Secret gets a restricted namespace.
        level = "privileged" if self.node_files or self.on_node_network else "restricted"
        yield fill("namespace", name=self.options.namespace, level=level)
        for group in groups:
            yield fill("service account", metadata=self._metadata(group))
        yield from self._velero_rights()
        yield self._config()
        for group in groups:
            yield self._cronjob(group)

    def _velero_rights(self) -> Iterator[Json]:
        name, account = f"clusterguard-{self._name('backup')}", self._name("backup")
        for namespace in self.velero_namespaces:
            metadata = {"name": name, "namespace": namespace, "labels": self._labels("backup")}
            yield fill("role", metadata=metadata, rules=velero_rules())
            yield fill("role binding", metadata=metadata, role=name, account=account, namespace=self.options.namespace)

    def _config(self) -> Json:
        labels = {"app.kubernetes.io/name": "clusterguard", "app.kubernetes.io/instance": self.policy.name}
        metadata = {"name": self.config_name, "namespace": self.options.namespace, "labels": labels}
        kubeconfig = {"in-cluster.kubeconfig": fill("in-cluster kubeconfig")} if self.velero_namespaces else {}
        return config_map(metadata, self.files, **kubeconfig)

    def _cronjob(self, group: Group) -> Json:
        cron = self.schedule.cron if group == "backup" else self.options.schedules.get(group, _ONCE_A_DAY.get(group))
        cronjob: Json = fill(
            "cronjob",
            metadata=self._metadata(group),
            labels=self._labels(group),
            schedule=cron,
            time_zone=self.schedule.time_zone,
            grace=max(60, int(self.schedule.grace.total_seconds())),
            longest=int(self.options.longest.total_seconds()),
            kept=int(self.options.kept.total_seconds()),
            retries=0 if group == "prove" else 2,
            pod=self._pod(group),
        )
        return cronjob

    def _pod(self, group: Group) -> Json:
        policy = _POLICY_KEY if group in _OPENERS or not _names_identity(self.policy) else _WRITING_KEY
        more: Json = {}
        if group == "backup" and self.on_node_network:
            # Names of Services are still wanted: the gateway of metrics, an S3 server of this cluster.
            more |= {"host_network": True, "dns_policy": "ClusterFirstWithHostNet"}
        if group == "backup" and (self.node_files or self.on_node_network):
            toleration = {"key": _CONTROL_PLANE, "operator": "Exists", "effect": "NoSchedule"}
            more |= {"node_selector": {_CONTROL_PLANE: ""}, "tolerations": [toleration]}
        return pod(
            account=self._name(group),
            token=group == "backup" and bool(self.velero_namespaces),
            user=self._user(group),
            image=self.options.image,
            args=["run", f"{_CONFIG_FOLDER}/{policy}", "--step", group, "--wait", _WAIT],
            env=self._environment(group),
            volumes=self._volumes(group),
            drills=group == "prove",
            **more,
        )

    def _volumes(self, group: Group) -> Iterator[Mounted]:
        user, options = self._user(group), self.options
        yield config_volume("policy", self.config_name, self.files, _CONFIG_FOLDER)
        yield from scratch_volumes(options.scratch)
        yield from storage_volumes(self._storage_secret(group), user=user)
        if files := sorted({secret_key(each.file) for each in self._secrets(group) if each.file}):
            yield secret_volume("secrets", options.secrets, SECRETS_FOLDER, user=user, keys=files)
        for number, (path, claim) in enumerate(sorted(options.claims.items())):
            yield volume(f"claim-{number}", {"persistentVolumeClaim": {"claimName": claim}}, path, writable=True)
        if group != "backup":
            return
        for number, path in enumerate(self.node_files):
            yield volume(f"node-file-{number}", {"hostPath": {"path": path, "type": "File"}}, path)
        if self.takes_etcd_secret:
            yield secret_volume("etcd", options.etcd_secret, ETCD_FOLDER, user=user)
        if self.velero_namespaces:
            items = [{"key": "in-cluster.kubeconfig", "path": "kubeconfig"}]
            folder = str(PurePosixPath(IN_CLUSTER.removeprefix("kubeconfig:")).parent)
            yield volume("in-cluster", {"configMap": {"name": self.config_name, "items": items}}, folder)

    def _environment(self, group: Group) -> Iterator[Json]:
        # Whom the audit trail names.
        yield {"name": "CLUSTERGUARD_ACTOR", "value": f"cronjob {self.options.namespace}/{self._name(group)}"}
        yield from credentials_variable(self._storage_secret(group))
        for name in sorted({each.env for each in self._secrets(group) if each.env}):
            yield {"name": name, "valueFrom": {"secretKeyRef": {"name": self.options.secrets, "key": name}}}

    def _secrets(self, group: Group) -> Iterator[Secret]:
        """Yield what a group must know: the key that opens backups is not among what writes them."""
        yield from self.policy.addresses
        if (encryption := self.policy.encryption) is not None:
            if encryption.passphrase is not None:
                yield encryption.passphrase
            if encryption.identity is not None and group in _OPENERS:
                yield encryption.identity
            if below(encryption.recipients_file, SECRETS_FOLDER):
                yield Secret(file=encryption.recipients_file)
        if group == "prove":
            rehearsals = [proof.rehearse for proof in self.policy.proofs if proof.rehearse]
            yield from (Secret(file=each.encryption_config) for each in rehearsals if each.encryption_config)
            yield from (Secret(file=str(file)) for file in drill_secrets(_drills_of(self.policy)))
        if group == "backup":
            elsewhere = (each for each in self.velero.values() if each.cluster != IN_CLUSTER)
            yield from (Secret(file=_kubeconfig_of(each)) for each in elsewhere)
            yield from (secret for source in self.etcd.values() for secret in (source.user, source.password) if secret)

    def _user(self, group: Group) -> int:
        """Return who a pod is: kubeadm keeps etcd's keys for root."""
        return 0 if group == "backup" and self.node_files else USER

    def _storage_secret(self, group: Group) -> str:
        return self.options.keeper_secret if group == "retain" else self.options.writer_secret

    def _name(self, group: Group) -> str:
        name = f"{self.policy.name}-{group}"
        if len(name) > _LONGEST_CRONJOB:
            raise ConfigError(
                f"{name} is too long for a CronJob, which has {_LONGEST_CRONJOB} characters",
                hint="give the policy a shorter name",
            )
        return name

    def _labels(self, group: Group) -> dict[str, str]:
        return {
            "app.kubernetes.io/name": "clusterguard",
            "app.kubernetes.io/instance": self.policy.name,
            "app.kubernetes.io/component": group,
        }

    def _metadata(self, group: Group) -> Json:
        return {"name": self._name(group), "namespace": self.options.namespace, "labels": self._labels(group)}


def _drills_of(policy: Policy) -> list[Path]:
    folder = Path(policy.path).absolute().parent
    return [folder / proof.drill for proof in policy.proofs if proof.drill]


def _names_identity(policy: Policy) -> bool:
    return policy.encryption is not None and policy.encryption.identity is not None


def _without_identity(path: Path) -> str:
    """Return a policy's text without the key that opens backups."""
    document = only_document(read_source(path), noun="policy", hint="", literal_keys=_LITERAL_KEYS)
    data: Json = document.data if isinstance(document.data, dict) else {}
    spec = data.get("spec", {})
    encryption = {key: value for key, value in spec.get("encryption", {}).items() if not key.startswith("identity")}
    return yaml_text([{**data, "spec": {**spec, "encryption": encryption}}])


def _require_runnable(policy: Policy, options: CronJobOptions, text: str) -> None:
    """Refuse what a pod could not do."""
    for source in policy.sources:
        if source.etcd is not None:
            _require_reachable_etcd(source.name, source.etcd)
        if source.velero is not None:
            _require_known_cluster(source.name, source.velero)
    _require_kept_locations(policy, options)
    if unknown := [each for each in references(text) if each.startswith("env.")]:
        raise ConfigError(
            f"the policy takes ${{{unknown[0]}}} from the environment, and no pod has that variable",
            code="not-in-pods",
            fields={"what": unknown[0]},
            hint="write its value into the policy; what is secret is named by file or variable in its own keys",
        )
    if policy.scratch and not _mount_of(policy.scratch, options.claims):
        raise ConfigError(
            f"no pod has the scratch folder {policy.scratch}",
            code="not-in-pods",
            fields={"what": policy.scratch},
            hint="leave `scratch` out: pods have a volume of --scratch SIZE for that; or mount a claim there",
        )
    if policy.metrics.textfile and not _mount_of(policy.metrics.textfile, options.claims):
        raise ConfigError(
            f"metrics would be written to {policy.metrics.textfile} in a pod, where nothing reads them",
            hint="use metrics.pushgateway, or mount a claim there",
        )


def _require_reachable_etcd(name: str, source: EtcdSource) -> None:
    if not source.endpoints:
        raise ConfigError(
            f"source {name} is found by {source.cluster}, and a pod cannot look there",
            hint="give its endpoints, ca, cert and key: on a node of kubeadm https://127.0.0.1:2379 and "
            "ca.crt, healthcheck-client.crt and healthcheck-client.key of /etc/kubernetes/pki/etcd",
        )
    for file in source.tls_files:
        if not file.startswith("/"):
            raise ConfigError(
                f"source {name}: {file} is not an absolute path, so no pod could find it",
                hint=f"a path on the control-plane node, or {ETCD_FOLDER}/{PurePosixPath(file).name} from a Secret",
            )


def _kubeconfig_of(source: VeleroSource) -> str:
    return source.kubeconfig or source.cluster.removeprefix("kubeconfig:")


def _require_known_cluster(name: str, source: VeleroSource) -> None:
    if source.cluster != IN_CLUSTER and not below(_kubeconfig_of(source), SECRETS_FOLDER):
        raise ConfigError(
            f"source {name} is in cluster {source.cluster}, which no pod knows",
            code="not-in-pods",
            fields={"what": source.cluster},
            hint=f"write {IN_CLUSTER} for the cluster that the pods run in; for another one put a kubeconfig into "
            f"the Secret, and name it kubeconfig:{SECRETS_FOLDER}/NAME",
        )


def _require_kept_locations(policy: Policy, options: CronJobOptions) -> None:
    for location in policy.locations:
        scheme = urlsplit(location.url).scheme
        folder = unquote(urlsplit(location.url).path) if scheme == "file" else location.url
        if scheme in ("", "file") and not _mount_of(folder, options.claims):
            raise ConfigError(
                f"location {location.name} is the folder {folder}, which is lost when its pod ends",
                code="not-in-pods",
                fields={"what": folder},
                hint="name a claim that is mounted there (claims), or use a bucket",
            )


def _mount_of(path: str, claims: Mapping[str, str]) -> str:
    return next((claim for mount, claim in claims.items() if path == mount or below(path, mount)), "")
