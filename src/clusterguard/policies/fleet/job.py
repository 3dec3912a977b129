"""A fleet as an Indexed Job: one pod for each cluster, as many at a time as wanted, each with a limit of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ConfigError
from clusterguard.policies.deploy.pods import (
    SECRETS_FOLDER,
    config_map,
    config_volume,
    credentials_variable,
    drill_files,
    files_beside,
    pod,
    scratch_volumes,
    secret_key,
    secret_volume,
    storage_volumes,
)
from clusterguard.policies.deploy.templates import fill

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.policies.deploy.pods import Json, Mounted
    from clusterguard.policies.fleet.files import Fleet, FleetCluster

__all__ = ["FleetJobOptions", "fleet_manifests"]

_FLEET_FOLDER: Final = "/etc/clusterguard/fleet"
_FLEET_KEY: Final = "fleet.yaml"
_JOB_NAME: Final = "batch.kubernetes.io/job-name"
_MOST_INDEXES: Final = 100_000  # of a Job with a limit for each index


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetJobOptions:
    """What Kubernetes needs to know besides the fleet.

    Attributes:
        writer_secret: Holds ``credentials`` for the results; empty where pods have an identity without them.
    """

    results: str  # the store of the results, as `open_store` takes it
    image: str = "clusterguard:latest"  # the image of clusterguard, with the programs that the drills need
    namespace: str = "clusterguard"  # where the Job is; it must be there
    parallelism: int = 5  # how many clusters at a time
    attempts: int = 1  # how often a cluster without a verdict is tried again; a verdict is final
    longest: timedelta = timedelta(hours=2)  # how long one cluster's drills may take
    kept: timedelta = timedelta(days=7)  # how long the finished Job is kept
    schedule: str = ""  # five fields for a CronJob; empty for one Job
    time_zone: str = "UTC"  # of the schedule
    allowed_contexts: tuple[str, ...] = ()  # globs of contexts that drills may destroy in
    secrets: str = "clusterguard-secrets"  # holds the kubeconfigs, each under its file's name
    writer_secret: str = "clusterguard-writer"  # noqa: S105 - a name
    scratch: str = "10Gi"  # the most that a pod may write to its own disk


def fleet_manifests(fleet: Fleet, *, options: FleetJobOptions) -> tuple[Json, ...]:
    """Return a ConfigMap with the fleet and its drills, and the Job (or CronJob) that runs one pod for each cluster.

    Raises:
        InvalidDrillError: A drill is wrong, or wants a variable that the cluster does not give.
        ConfigError: A pod would not find something; the message says what to change.
    """
    files = _files_of(fleet)
    labels = {"app.kubernetes.io/name": "clusterguard", "app.kubernetes.io/instance": fleet.name}
    metadata: Json = {"namespace": options.namespace, "labels": labels}
    named: Json = {**metadata, "name": f"{fleet.name}-fleet"}
    config = config_map(named, files)
    if not options.schedule:
        return config, _job(fleet, options, files, {**metadata, "generateName": f"{fleet.name}-"}, labels)
    job = _job(fleet, options, files, {}, labels)["spec"]
    schedule = {"schedule": options.schedule, "time_zone": options.time_zone}
    return config, fill("fleet cronjob", metadata=named, labels=labels, job=job, **schedule)


def _files_of(fleet: Fleet) -> Mapping[str, str]:
    for cluster in fleet.clusters:
        fleet.load_drills(cluster, {})  # as in its pod, which has no variables but those of the fleet
    return files_beside(fleet.path.absolute(), name=_FLEET_KEY, named=drill_files(fleet.drill_paths()))


def _job(
    fleet: Fleet, options: FleetJobOptions, files: Mapping[str, str], metadata: Json, labels: Mapping[str, str]
) -> Json:
    number = len(fleet.clusters)
    if number > _MOST_INDEXES:
        raise ConfigError(f"fleet {fleet.name} has {number:,} clusters, and one Job takes {_MOST_INDEXES:,}")
    rounds = -(-number // options.parallelism) * (1 + options.attempts)
    longest = int(options.longest.total_seconds())
    job: Json = fill(
        "fleet job",
        metadata=metadata,
        labels=labels,
        clusters=number,
        parallelism=min(options.parallelism, number),
        attempts=options.attempts,
        longest=longest * rounds,
        kept=int(options.kept.total_seconds()),
        pod=_pod(fleet, options, files, longest),
    )
    return job


def _pod(fleet: Fleet, options: FleetJobOptions, files: Mapping[str, str], longest: int) -> Json:
    allowed = [word for glob in options.allowed_contexts for word in ("--allow-context", glob)]
    arguments = ["--results", options.results, "--run", "$(RUN)", *allowed]
    run = {"name": "RUN", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{_JOB_NAME}']"}}}
    return pod(
        image=options.image,
        args=["fleet", "run", f"{_FLEET_FOLDER}/{_FLEET_KEY}", *arguments],
        env=[run, *credentials_variable(options.writer_secret)],
        volumes=_volumes(fleet, options, files),
        drills=True,
        deadline=longest,
    )


def _volumes(fleet: Fleet, options: FleetJobOptions, files: Mapping[str, str]) -> Iterator[Mounted]:
    yield config_volume("fleet", f"{fleet.name}-fleet", files, _FLEET_FOLDER)
    yield from scratch_volumes(options.scratch)
    yield from storage_volumes(options.writer_secret)
    if keys := sorted({key for cluster in fleet.clusters if (key := _kubeconfig_key(fleet, cluster))}):
        yield secret_volume("secrets", options.secrets, SECRETS_FOLDER, keys=keys)


def _kubeconfig_key(fleet: Fleet, cluster: FleetCluster) -> str:
    """Return the key of the Secret that a cluster is reached by; nothing for one that the pod starts itself.

    Raises:
        ConfigError: No pod has what reaches it.
    """
    if cluster.cluster == "embedded":
        return ""
    kubeconfig = cluster.file_of(fleet.path.parent)
    if kubeconfig is None:
        raise ConfigError(
            f"cluster {cluster.name} is {cluster.cluster}, which no pod knows",
            hint=f"put a kubeconfig into a Secret, and name it {SECRETS_FOLDER}/{cluster.name}",
        )
    return secret_key(str(kubeconfig))
