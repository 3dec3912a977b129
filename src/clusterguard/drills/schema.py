"""The drill file as a model: the envelope around the steps, whose verbs are in `clusterguard.drills.steps`.

One model gives three things: validation, the typed values that the runner reads, and the published JSON
Schema, where the docstring under each field is its description. Keys are camelCase in the file and snake_case
here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, TypeVar

from pydantic import (
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic.alias_generators import to_snake

from clusterguard.documents.model import REFERENCE_PATTERN, Cron, Duration, Label, Model, Omitted, Text, listed, wrong
from clusterguard.documents.schema import document_schema, schema_text
from clusterguard.drills.steps.base import PHASES, Action, PhaseName
from clusterguard.drills.steps.registry import verbs
from clusterguard.drills.steps.scope import ScopeSpec
from clusterguard.stores.bucket_names import check_bucket_name, check_new_bucket_name

__all__ = [
    "DEFAULT_CLUSTER",
    "LOCAL",
    "SCHEMA_URL",
    "STEP_CLASSES",
    "BackupStep",
    "Canary",
    "CleanupStep",
    "ClusterSpec",
    "DrillFile",
    "DrillSpec",
    "EmbeddedProvider",
    "Evidence",
    "FaultStep",
    "KindProvider",
    "Metadata",
    "Objectives",
    "RestoreStep",
    "S3Storage",
    "ScopeSpec",
    "SetupStep",
    "Step",
    "StorageSpec",
    "VerifyStep",
    "drill_schema",
    "drill_schema_text",
]

SCHEMA_URL: Final = "https://clusterguard.dev/schemas/drill-v1alpha1.json"
DEFAULT_CLUSTER: Final = "main"
LOCAL: Final = "local"
"""The endpoint that stands for a throwaway server of the run."""


def _flat_matrix(value: object) -> dict[str, tuple[str | int | bool, ...]]:
    if not isinstance(value, dict) or not all(isinstance(items, (list, tuple)) for items in value.values()):
        raise ValueError('a mapping of lists is expected here, such as {k8s: ["1.35", "1.36"]}')
    for items in value.values():
        if not all(isinstance(item, (str, int)) for item in items):
            raise ValueError("a matrix holds texts and numbers only")
    return {str(key): tuple(items) for key, items in value.items()}


Matrix: TypeAlias = Annotated[
    dict[str, tuple[str | int | bool, ...]],
    PlainValidator(_flat_matrix),
    PlainSerializer(dict),
    WithJsonSchema({
        "type": "object",
        "additionalProperties": {
            "type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]},
        },
        "examples": [{"k8s": ["1.35", "1.36"]}],
    }),
]  # fmt: skip


# ── Steps: one class for each phase, because a phase decides what may happen in it ────────────────────────


class Step(Model):
    """One step: exactly one action, and how it is run."""

    fields_of_verbs: ClassVar[dict[str, str]] = {}
    """The key of each verb that the phase has, and the name of its field."""

    name: Text | Omitted = None
    """What reports call the step; its action when left out."""
    cluster: Label | Omitted = None
    """A name from spec.clusters; the first one when left out."""
    timeout: Duration | Omitted = None
    """How long the step may take, or a check may stay red."""

    @property
    def verb(self) -> str:
        """The key of the action as the file has it, such as ``etcdRestore``."""
        return self.action.verb()

    @property
    def action(self) -> Action:
        """The one action."""
        found: list[Action | None] = [getattr(self, field) for field in self.fields_of_verbs.values()]
        return next(action for action in found if action is not None)

    @model_validator(mode="after")
    def _exactly_one_action(self) -> Step:
        found = [verb for verb, field in self.fields_of_verbs.items() if getattr(self, field) is not None]
        if not found:
            raise wrong(f"a step needs an action, one of {listed(list(self.fields_of_verbs))}")
        if len(found) > 1:
            raise wrong(f"a step has one action: split `{'` and `'.join(found)}` into steps of their own", key=found[1])
        return self


_S = TypeVar("_S", bound=Step)


def _with_verbs(step: type[_S]) -> type[_S]:
    """Give a step a field for each verb that its phase allows; none of them clashes with what a model has."""
    phase = step.__name__.removesuffix("Step").lower()
    allowed = {key: verb for key, verb in verbs().items() if phase == "cleanup" or phase in verb.phases}
    names = {key: f"do_{to_snake(key)}" for key in allowed}
    fields: dict[str, Any] = {
        names[key]: (verb | Omitted, Field(default=None, alias=key)) for key, verb in allowed.items()
    }
    model = create_model(step.__name__, __base__=step, __module__=step.__module__, __doc__=step.__doc__, **fields)
    model.fields_of_verbs = names
    return model


@_with_verbs
class SetupStep(Step):
    """A step that builds what the drill is about."""


@_with_verbs
class BackupStep(Step):
    """A step that makes a backup, or looks at one."""


@_with_verbs
class FaultStep(Step):
    """A step that destroys something on purpose."""


@_with_verbs
class RestoreStep(Step):
    """A step of the recovery; its time counts."""


@_with_verbs
class VerifyStep(Step):
    """A check: red after the fault, green after the restore."""


@_with_verbs
class CleanupStep(Step):
    """A step that always runs at the end, whatever happened; any action may stand here."""


STEP_CLASSES: Final[dict[PhaseName, type[Step]]] = dict(
    zip(PHASES, (SetupStep, BackupStep, FaultStep, RestoreStep, VerifyStep, CleanupStep), strict=True)
)


# ── The file ──────────────────────────────────────────────────────────────────────────────────────────────


class Metadata(Model):
    """What the drill is called."""

    name: Label
    """The drill's name; a matrix adds to it, as in `etcd-pods[k8s=1.36]`."""
    labels: dict[str, str] = Field(default_factory=dict)
    """For choosing drills, as with `--drill-selector tier=nightly`."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Remarks; they change nothing."""


class KindProvider(Model):
    """A throw-away cluster in Docker containers, by kind."""

    version: Text | Omitted = None
    """Kubernetes version, such as `1.36`."""
    control_planes: Annotated[int, Field(ge=1, le=7)] = 1
    """Control-plane nodes, each with an etcd member and an API server; kind's load balancer stands before several."""
    workers: Annotated[int, Field(ge=0, le=20)] = 0
    """Worker nodes beside them."""

    @property
    def in_words(self) -> str:
        """Its version and how many nodes, in a plan; nothing where it is as usual."""
        counts = {"control planes": self.control_planes if self.control_planes > 1 else 0, "workers": self.workers}
        told = ", ".join(f"{what}: {count}" for what, count in counts.items() if count)
        return (f" {self.version}" if self.version else "") + (f" ({told})" if told else "")


class EmbeddedProvider(Model):
    """A throw-away control plane of real programs on this machine; its pods are simulated."""

    members: Literal[1, 3, 5] = 1
    """How many members etcd has."""

    @property
    def in_words(self) -> str:
        """How many members, in a plan; nothing where one is all."""
        return f" (members: {self.members})" if self.members > 1 else ""


_PROVIDERS = ("kind", "embedded", "context", "kubeconfig")


class ClusterSpec(Model):
    """One cluster. Without a provider it takes the run's `--drill-cluster`, which also chooses where both are given."""

    kind: KindProvider | Omitted = None
    """Create it with kind."""
    embedded: EmbeddedProvider | Omitted = None
    """Create it on this machine, without Docker."""
    context: Text | Omitted = None
    """An existing cluster: a context of the user's kubeconfig. Destroying needs `--drill-allow-context`."""
    kubeconfig: Text | Omitted = None
    """An existing cluster: the current context of this file, relative to the drill file."""
    start_in: Literal["setup", "restore"] = "setup"
    """`restore`: created only then, so that its creation counts as recovery time."""

    @property
    def existing(self) -> bool:
        """Whether the cluster was there before the drill, and must be there after it."""
        return self.context is not None or self.kubeconfig is not None

    def provider(self, default: str) -> str:
        """Return the key of its provider; ``""`` where it leaves that to the run.

        Args:
            default: The run's reference of clusters that name none; of both kind and embedded it chooses one.
        """
        given = self.given(*_PROVIDERS)
        if len(given) > 1:
            return "kind" if default.partition(":")[0] == "kind" else "embedded"
        return given[0] if given else ""

    @model_validator(mode="after")
    def _one_provider(self) -> ClusterSpec:
        if self.given(*_PROVIDERS) != ["kind", "embedded"]:  # both: how it is on each
            self.need_one(*_PROVIDERS, optional=True)
        if self.existing and self.start_in == "restore":
            raise wrong("an existing cluster is not started by the drill", key="startIn")
        return self


class S3Storage(Model):
    """A bucket."""

    bucket: Text
    """The bucket's name."""
    prefix: Text | Omitted = None
    """Where in the bucket."""
    region: Text | Omitted = None
    """Its region."""
    endpoint: Text | Omitted = None
    """URL of an S3 server that is not Amazon's; `local` starts a throw-away one."""

    @model_validator(mode="after")
    def _possible_bucket(self) -> S3Storage:
        try:
            if self.endpoint == LOCAL:
                check_new_bucket_name(self.bucket)
            else:
                check_bucket_name(self.bucket, endpoint=self.endpoint or "", region=self.region or "")
        except ValueError as error:
            raise wrong(str(error), key="bucket") from error
        return self


class DirectoryStorage(Model):
    """A directory on this machine."""

    path: Text
    """The directory, relative to the drill file; created when it is not there."""


class StorageSpec(Model):
    """Where backups rest."""

    s3: S3Storage | Omitted = None
    """An S3 bucket."""
    directory: DirectoryStorage | Omitted = None
    """A local directory, for etcd snapshots."""

    @model_validator(mode="after")
    def _one_place(self) -> StorageSpec:
        self.need_one("s3", "directory")
        return self


def _read_times(written: object) -> float:
    found = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,3})?)x", written) if isinstance(written, str) else None
    if found is None or float(found[1]) <= 1:
        raise ValueError("how many times as slow is expected here, more than 1x, such as 1.4x")
    return float(found[1])


Times: TypeAlias = Annotated[
    float,
    PlainValidator(_read_times),
    PlainSerializer(lambda times: f"{times:g}x"),
    WithJsonSchema(
        {"type": "string", "pattern": rf"^([0-9]{{1,4}}(\.[0-9]{{1,3}})?x{REFERENCE_PATTERN})$", "examples": ["1.4x"]}
    ),
]


class Objectives(Model):
    """What recovery is promised to take; a miss fails the drill."""

    rto: Duration | Omitted = None
    """Recovery time: from the end of the fault until all of verify holds."""
    rpo: Duration | Omitted = None
    """Data loss: the age of the newest marker that came back."""
    slower_than: Times | Omitted = None
    """How many times the median recovery time of its last ten runs it may take, such as `1.4x`; with evidence of fewer
    than five it judges nothing."""

    def to_dict(self) -> dict[str, float]:
        """Return what is promised as plain data for JSON."""
        seconds = {"rtoSeconds": self.rto, "rpoSeconds": self.rpo}
        promised = {name: promise.total_seconds() for name, promise in seconds.items() if promise}
        return promised | ({"slowerThan": self.slower_than} if self.slower_than else {})


class Canary(Model):
    """Markers written again and again, so that the lost time is measured."""

    every: Duration
    """The time between two markers."""


def _canary_form(value: object) -> str | None:
    if isinstance(value, bool):
        return "switch"
    return "ticking" if isinstance(value, (dict, Canary)) else None


class Evidence(Model):
    """What goes into the report beside the result."""

    controls: tuple[Text, ...] = ()
    """Controls that this drill is evidence for, copied as they are."""


class DrillSpec(Model):
    """What happens, phase by phase."""

    description: str = ""
    """One sentence for people."""
    schedule: Cron | Omitted = None
    """When it is due, in CronJob's five fields; nothing here waits for it."""
    time_zone: Text | Omitted = None
    """The schedule's time zone, such as Europe/Berlin."""
    timeout: Duration | Omitted = None
    """The most that the whole drill may take, cleanup aside."""
    clusters: dict[Label, ClusterSpec] = Field(default_factory=dict)
    """The clusters by name, the first being the default of every step; one named `main` when left out."""
    storage: dict[Label, StorageSpec] = Field(default_factory=dict)
    """Places for backups, by name."""
    scope: ScopeSpec = Field(default_factory=ScopeSpec)
    """What must come back."""
    objectives: Objectives = Field(default_factory=Objectives)
    """What recovery is promised to take."""
    canary: Annotated[
        Annotated[bool, Tag("switch")] | Annotated[Canary, Tag("ticking")], Discriminator(_canary_form)
    ] = True
    """Markers that prove that the restore did it: on by default; `{every: 30s}` measures data loss too."""
    prove: bool = True
    """false: do not demand that verify was red after the fault. The report says so."""
    matrix: Matrix = Field(default_factory=dict)
    """Lists of values: the drill runs once for every combination, and `${matrix.key}` is its value."""
    setup: tuple[SetupStep, ...] = ()
    """Build what the drill is about."""
    backup: Annotated[tuple[BackupStep, ...], Field(min_length=1)]
    """Back it up. The baseline is taken when this phase begins."""
    fault: tuple[FaultStep, ...] = ()
    """Break it. The recovery clock starts when this phase ends. Only a drill of a `storedBackup` may leave it out: its
    new cluster has nothing of what was lost."""
    restore: Annotated[tuple[RestoreStep, ...], Field(min_length=1)]
    """Recover."""
    verify: Annotated[tuple[VerifyStep, ...], Field(min_length=1)]
    """Prove it. The recovery clock stops when all of this holds."""
    cleanup: tuple[CleanupStep, ...] = ()
    """Undo; it always runs, last step first."""
    on_failure: tuple[Literal["events", "describe", "logs"], ...] = ("events", "describe", "logs")
    """What to collect from the scope when the drill is red."""
    evidence: Evidence = Field(default_factory=Evidence)
    """What goes into the report beside the result."""

    def steps(self, phase: PhaseName) -> tuple[Step, ...]:
        """Return the steps of one phase, in the order of the file."""
        steps: tuple[Step, ...] = getattr(self, phase)
        return steps

    @property
    def effective_clusters(self) -> dict[str, ClusterSpec]:
        """The clusters by name, with the one that a drill without clusters has."""
        return dict(self.clusters) or {DEFAULT_CLUSTER: ClusterSpec()}

    @property
    def proves_stored(self) -> bool:
        """Whether it proves a backup that was there before: then nothing of this run is in it."""
        return any(step.verb == "storedBackup" for step in self.backup)

    @property
    def compares_stored(self) -> bool:
        """Whether what such a backup holds is the baseline; a snapshot's content is read only where it is asked for."""
        compares = any(step.verb == "restored" for step in self.verify)
        return self.proves_stored and (self.stored_in_velero or compares)

    @property
    def stored_in_velero(self) -> bool:
        """Whether it proves a Velero backup that was there before, whose content is the baseline."""
        return any(step.verb == "storedBackup" and step.action.works_with() == "velero" for step in self.backup)

    @model_validator(mode="after")
    def _a_fault_or_nothing_yet(self) -> DrillSpec:
        if not self.fault and not self.proves_stored:
            raise wrong("`fault` is missing: a drill must break something")
        if self.proves_stored and any(step.verb not in ("storedBackup", "verifyBackup") for step in self.backup):
            raise wrong("a `storedBackup` is proven by itself: leave the other backups to another drill", key="backup")
        if self.stored_in_velero and sum(step.verb == "storedBackup" for step in self.backup) > 1:
            raise wrong("a Velero backup is proven by itself: leave the other one to another drill", key="backup")
        return self

    @model_validator(mode="after")
    def _time_zone_of_a_schedule(self) -> DrillSpec:
        if self.time_zone and not self.schedule:
            raise wrong("`timeZone` needs a `schedule`", key="timeZone")
        return self


class DrillFile(Model):
    """A drill: back a cluster up, break it on purpose, restore it, and prove that what was lost is back."""

    api_version: Literal["clusterguard.dev/v1alpha1"]
    """The version of this format."""
    kind: Literal["Drill"]
    """Always Drill."""
    metadata: Metadata
    """What the drill is called."""
    spec: DrillSpec
    """What happens, phase by phase."""


def drill_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of drill files, for editors and for checks outside of Python.

    It knows the shape only. That names refer to something, that files exist, and which keys exclude each
    other is checked when a drill is loaded.
    """
    return document_schema(
        DrillFile, url=SCHEMA_URL, title="clusterguard drill", scope="matrix", adjust=_one_action_each
    )


def _one_action_each(definitions: dict[str, Any]) -> None:
    for step in STEP_CLASSES.values():
        definitions[step.__name__]["oneOf"] = [{"required": [verb]} for verb in step.fields_of_verbs]


def drill_schema_text() -> str:
    """Return the JSON Schema as the text that is published."""
    return schema_text(drill_schema())
