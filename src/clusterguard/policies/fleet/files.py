"""A fleet: many clusters, and the drills that each of them must pass.

A run of a fleet is as many runs of `run_cluster` as there are clusters, each by itself and, on Kubernetes, each in a
pod of one Indexed Job (`clusterguard.policies.fleet.job`). They share nothing but a store, in which each leaves its
result (`clusterguard.policies.fleet.results`).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, ValidationError, model_validator

from clusterguard.documents.explain import Grammar, explain
from clusterguard.documents.model import Label, Model, Name, Selector, Text, wrong
from clusterguard.documents.reading import only_document
from clusterguard.documents.schema import document_schema, schema_text
from clusterguard.documents.values import selects
from clusterguard.documents.yamlfile import raise_problems, read_source
from clusterguard.errors import ClusterGuardError, ConfigError
from clusterguard.policies.fleet.results import ClusterResult, check_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clusterguard.drills import Drill, DrillResult
    from clusterguard.drills.events import EventSink

__all__ = [
    "FLEET_SCHEMA_URL",
    "Fleet",
    "FleetCluster",
    "fleet_schema_text",
    "load_fleet",
    "run_cluster",
]

FLEET_SCHEMA_URL: Final = "https://clusterguard.dev/schemas/fleet-v1alpha1.json"
_HINT: Final = "docs/how-to/fleet.md has every key; `clusterguard fleet schema` is for editors"


class FleetCluster(Model):
    """One cluster of the fleet."""

    name: Name
    """What people call it; its results bear this name."""
    cluster: Text = Field(examples=["context:berlin", "kubeconfig:kubeconfigs/berlin", "embedded"])
    """Where drills run that name no cluster, as `--cluster` takes it; a path is one from the fleet file's folder."""
    kubeconfig: Text | None = None
    """The file that `context:` looks in, from the fleet file's folder."""
    node_shell: Text | None = None
    """How to become root on its control-plane node, as `--node-shell` takes it."""
    labels: dict[str, Label] = Field(default_factory=dict)
    """For people, and for reports."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Values of `${env.NAME}` in the drills, before those of the environment."""

    @model_validator(mode="after")
    def _sensible(self) -> FleetCluster:
        if self.kubeconfig is not None and not self.cluster.startswith("context:"):
            raise wrong("`kubeconfig` is where `context:` looks, and this cluster is none", key="kubeconfig")
        return self

    def file_of(self, folder: Path) -> Path | None:
        """Return the kubeconfig that the cluster is reached by; None for the usual one, or none at all."""
        named = self.kubeconfig or (self.cluster.partition(":")[2] if self.cluster.startswith("kubeconfig:") else None)
        return None if named is None else folder / named


class FleetMetadata(Model):
    """What the fleet is called."""

    name: Name
    """Its results are kept under this name."""
    labels: dict[str, Label] = Field(default_factory=dict)
    """For people and their tools."""


class FleetSpec(Model):
    """What is run where."""

    drills: tuple[Text, ...] = Field(min_length=1)
    """Drill files, or folders of them, from the fleet file's folder."""
    selector: Selector | None = None
    """Only drills with these labels."""
    clusters: tuple[FleetCluster, ...] = Field(min_length=1)
    """The clusters, in the order of their indexes."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> FleetSpec:
        names = [each.name for each in self.clusters]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise wrong(
                f"two clusters are called `{twice[0]}`, and would overwrite each other's results", key="clusters"
            )
        return self


class FleetFile(Model):
    """A fleet of clusters, and the drills that each of them must pass."""

    api_version: Literal["clusterguard.dev/v1alpha1"]
    """The version of this format."""
    kind: Literal["Fleet"]
    """What this document is."""
    metadata: FleetMetadata
    """What the fleet is called."""
    spec: FleetSpec
    """What is run where."""


class Fleet(FleetSpec):
    """A fleet that was read from a file."""

    name: str
    """What people call it."""
    path: Path
    """The file."""

    def cluster(self, index: int) -> FleetCluster:
        """Return the cluster of an index, from 0."""
        if not 0 <= index < len(self.clusters):
            raise ConfigError(
                f"fleet {self.name} has no cluster with index {index}",
                hint=f"there are {len(self.clusters)}, from 0; is the Job's ConfigMap older than the Job?",
            )
        return self.clusters[index]

    def drill_paths(self) -> tuple[Path, ...]:
        """Return the drill files, those of a folder in the order of their names."""
        named = [self.path.parent / each for each in self.drills]
        found = tuple(
            file for path in named for file in (sorted(path.rglob("*.drill.yaml")) if path.is_dir() else [path])
        )
        if not found:
            raise ConfigError(f"{self.path}: its folders hold no drill", hint="drill files end in .drill.yaml")
        return found

    def load_drills(self, cluster: FleetCluster, environ: Mapping[str, str]) -> tuple[Drill, ...]:
        """Return the drills as one cluster runs them.

        Raises:
            InvalidDrillError: One is wrong.
            ConfigError: The selector leaves none.
        """
        from clusterguard.drills import load_drills

        known = {**environ, **cluster.variables}
        root = self.path.parent
        drills = [drill for path in self.drill_paths() for drill in load_drills(path, environ=known, root=root)]
        chosen = tuple(drill for drill in drills if selects(self.selector or "", drill.metadata.labels))
        if not chosen:
            raise ConfigError(
                f"no drill of fleet {self.name} has the labels {self.selector}",
                code="no-drills",
                fields={"selector": str(self.selector)},
            )
        return chosen


def load_fleet(path: Path) -> Fleet:
    """Read a fleet file.

    Raises:
        InvalidDocumentError: Something is wrong in it; all of it is in the message, each with its place.
    """
    document = only_document(read_source(path), noun="fleet", hint=_HINT)
    try:
        file = FleetFile.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        grammar = Grammar(root=FleetFile, union="text")
        raise_problems((problem for _, problem in explain(document, document.data, error, grammar=grammar)), hint=_HINT)
        raise
    return Fleet(**vars(file.spec), name=file.metadata.name, path=path)


def fleet_schema_text() -> str:
    """Return the JSON Schema of fleet files, for editors."""
    return schema_text(document_schema(FleetFile, url=FLEET_SCHEMA_URL, title="Fleet of clusterguard", scope="env"))


def run_cluster(
    fleet: Fleet,
    index: int,
    *,
    run: str,
    environ: Mapping[str, str],
    allowed_contexts: Sequence[str] = (),
    on_event: Callable[[], EventSink] = lambda: lambda _: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ClusterResult:
    """Run the drills of one cluster of a fleet.

    That a drill cannot be loaded or a program cannot be had is part of the result, so that the fleet's report has it.

    - ``index``: the cluster's, from 0.
    - ``run``: the run that this is a part of.
    - ``environ``: values of ``${env.NAME}``, and where programs come from.
    - ``allowed_contexts``: globs of contexts that drills may destroy in, as `DrillSettings` has them.
    - ``on_event``: makes a listener for what happens in a drill.

    Raises:
        ConfigError: The fleet has no such cluster, or the run's name is invalid.
    """
    cluster = fleet.cluster(index)
    check_run(run)
    started = now()
    done: list[DrillResult] = []
    not_run: dict[str, str] = {}
    problem = ""
    try:
        _run_drills(fleet, cluster, environ, allowed_contexts, on_event, done, not_run)
    except ClusterGuardError as error:
        problem = f"{error.message}{f' ({error.hint})' if error.hint else ''}"
    return ClusterResult(
        fleet=fleet.name,
        run=run,
        cluster=cluster.name,
        started=started,
        finished=now(),
        drills=tuple(each.to_dict() for each in done),
        not_run=not_run,
        error=problem,
    )


def _run_drills(
    fleet: Fleet,
    cluster: FleetCluster,
    environ: Mapping[str, str],
    allowed_contexts: Sequence[str],
    on_event: Callable[[], EventSink],
    done: list[DrillResult],
    not_run: dict[str, str],
) -> None:
    """Run what can be run, and note each result as soon as it is there: an error later on must not lose it."""
    from clusterguard.drills import DrillRunner, DrillSettings
    from clusterguard.drills.programs import programs_for, require_docker_for
    from clusterguard.drills.requirements import skip_reason
    from clusterguard.toolchain import from_environment

    folder = fleet.path.parent
    kubeconfig = cluster.file_of(folder)
    cluster_ref = f"kubeconfig:{kubeconfig}" if cluster.cluster.startswith("kubeconfig:") else cluster.cluster
    drills = fleet.load_drills(cluster, environ)
    require_docker_for(drills, default_cluster=cluster_ref)
    if needed := programs_for(drills, default_cluster=cluster_ref):
        from_environment(environ).ensure(*needed)
    settings = DrillSettings(
        cluster=cluster_ref,
        kubeconfig=kubeconfig,
        node_shell=cluster.node_shell or "",
        allowed_contexts=tuple(allowed_contexts),
    )
    for drill in drills:
        if reason := skip_reason(drill, default_cluster=cluster_ref):
            not_run[drill.id] = reason
            continue
        done.append(DrillRunner(settings=settings, on_event=on_event()).run(drill))
