"""``apply``: create or update objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from clusterguard.documents.model import Omitted, Text
from clusterguard.drills.markers import RUN_LABEL
from clusterguard.drills.steps.base import Action, StepContext
from clusterguard.drills.steps.selection import labels_of, named
from clusterguard.errors import ConflictError, ResourceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.drills.load import LoadedStep
    from clusterguard.drills.run import DrillRun

_OBJECTS_NAMED = 6


def _manifest_list(value: object) -> tuple[dict[str, Any], ...]:
    objects = value if isinstance(value, (list, tuple)) else [value]
    if not objects or not all(isinstance(item, dict) for item in objects):
        raise ValueError("a Kubernetes object, or a list of them, is expected here")
    return tuple(objects)


Objects: TypeAlias = Annotated[
    tuple[dict[str, Any], ...],
    PlainValidator(_manifest_list),
    PlainSerializer(list),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}, "minItems": 1}]}),
]


class Apply(Action):
    """Create or update objects by server-side apply, from a file beside the drill or written in place."""

    phases = ("setup", "fault", "restore")

    file: Text | Omitted = None
    """A YAML file, relative to the drill file; it may hold several documents."""
    files: Annotated[tuple[Text, ...], Field(min_length=1)] | Omitted = None
    """Several such files, applied in this order."""
    manifest: Objects | Omitted = None
    """One object, or a list of objects, written in the drill itself."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files to read, relative to the drill file."""
        return self.files or ((self.file,) if self.file else ())

    @model_validator(mode="after")
    def _one_source(self) -> Apply:
        self.need_one("file", "files", "manifest")
        return self

    def plan(self) -> str:
        return f"apply {', '.join(self.paths) or 'what the drill file holds'}"

    def details(self, step: LoadedStep) -> Iterator[str]:
        for manifest in step.objects[:_OBJECTS_NAMED]:
            metadata = manifest["metadata"]
            yield f"{manifest['kind']} {'/'.join(metadata[key] for key in ('namespace', 'name') if key in metadata)}"
        if len(step.objects) > _OBJECTS_NAMED:
            yield f"and {len(step.objects) - _OBJECTS_NAMED} more"

    def perform(self, here: StepContext) -> str:
        api = here.api
        for manifest in here.step.objects:
            # Whatever a later phase makes of an object of setup, it stays one; the objects of others get no label.
            ours = _identity(manifest) in _made_by_setup(here.run, here.step.cluster)
            api.await_kind(dict(manifest))
            if not here.run.owns(here.step.cluster) and here.step.phase == "setup":
                _refuse_to_take_over(api, manifest, here.run.run_id)
            api.apply(_labelled(manifest, here.run.run_id) if ours else dict(manifest))
        return f"{len(here.step.objects)} object(s) applied"


def _made_by_setup(run: DrillRun, cluster: str) -> set[tuple[str, ...]]:
    steps = (step for step in run.drill.phase("setup") if step.cluster == cluster)
    return {_identity(manifest) for step in steps for manifest in step.objects}


def _identity(manifest: Any) -> tuple[str, ...]:  # noqa: ANN401 - a manifest from YAML
    metadata = manifest["metadata"]
    group = manifest["apiVersion"].rpartition("/")[0]
    return group, manifest["kind"], metadata.get("namespace") or "default", metadata["name"]


def _labelled(manifest: Any, run_id: str) -> dict[str, Any]:  # noqa: ANN401 - a manifest from YAML
    labels = {**labels_of(manifest), RUN_LABEL: run_id}
    return {**manifest, "metadata": {**manifest["metadata"], "labels": labels}}


def _refuse_to_take_over(api: KubeClient, manifest: Any, run_id: str) -> None:  # noqa: ANN401 - a manifest from YAML
    """Keep a drill from adopting an object of others, which its cleanup would then delete."""
    try:
        resource, existing = named(api, manifest)
    except ResourceNotFoundError:
        return
    if labels_of(existing).get(RUN_LABEL) != run_id:
        raise ConflictError(
            f"{resource.kind} {existing['metadata']['name']} exists already, and not from this run: "
            "setup does not take it over",
            hint="let the drill use names of its own, or leave the object out of setup",
            code="object-of-others",
        )
