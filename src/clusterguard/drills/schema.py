"""The drill file as a model: what may be written, in which phase, with which meaning.

One model gives three things: validation, the typed values that the runner reads, and the published JSON
Schema, where the docstring under each field is its description. Keys are camelCase in the file and snake_case
here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema  # noqa: TC002 - pydantic evaluates annotations

from clusterguard.documents.model import (
    REFERENCE_PATTERN,
    Cron,
    Duration,
    Label,
    Model,
    Name,
    Port,
    Selector,
    Text,
    ZeroableDuration,
    listed,
    wrong,
)
from clusterguard.documents.schema import document_schema, schema_text
from clusterguard.drills.values import (
    CLUSTER_SCOPED_KINDS,
    NAMESPACED_KINDS,
    Comparison,
    check_field_path,
    check_kind,
)

__all__ = [
    "DEFAULT_CLUSTER",
    "PHASES",
    "SCHEMA_URL",
    "Absent",
    "Action",
    "Apply",
    "Assert",
    "BackupStep",
    "BlockStorage",
    "Canary",
    "CleanupStep",
    "ClusterSpec",
    "CopyBackup",
    "Delete",
    "DeleteCluster",
    "DrillFile",
    "DrillSpec",
    "EmbeddedProvider",
    "EtcdRestore",
    "EtcdSnapshot",
    "Evidence",
    "Exec",
    "ExecTarget",
    "FaultStep",
    "Http",
    "KindProvider",
    "LoseEtcd",
    "Metadata",
    "Objectives",
    "Patch",
    "PhaseName",
    "Ready",
    "RestoreStep",
    "Restored",
    "S3Storage",
    "SameFiles",
    "Scale",
    "ScopeSpec",
    "SetupStep",
    "StartNode",
    "Step",
    "StopNode",
    "StorageSpec",
    "StoredBackup",
    "UnblockStorage",
    "VeleroBackup",
    "VeleroRestore",
    "VerifyBackup",
    "VerifyStep",
    "WriteFile",
    "drill_schema",
    "drill_schema_text",
]

SCHEMA_URL: Final = "https://clusterguard.dev/schemas/drill-v1alpha1.json"
DEFAULT_CLUSTER: Final = "main"

PhaseName: TypeAlias = Literal["setup", "backup", "fault", "restore", "verify", "cleanup"]
PHASES: Final[tuple[PhaseName, ...]] = get_args(PhaseName)

_BUILT_IN_GROUPS: Final = frozenset({"apps", "autoscaling", "batch", "policy"})

_SIZE: Final = re.compile(r"([0-9]{1,9})(|Ki|Mi)")
_SIZE_PATTERN: Final = rf"^([0-9]{{1,9}}(Ki|Mi)?{REFERENCE_PATTERN})$"
_LARGEST_FILE: Final = 256 << 20
_COUNT_PATTERN: Final = rf"^(\s*(==|!=|<=|>=|<|>)?\s*[0-9]{{1,9}}\s*{REFERENCE_PATTERN})$"


def _comparison_to_file(comparison: Comparison) -> int | str:
    return comparison.value if comparison.operator == "==" else str(comparison)


_COUNT_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _COUNT_PATTERN}],
    "examples": [3, ">=3"],
}
Count: TypeAlias = Annotated[
    Comparison,
    PlainValidator(Comparison.read),
    PlainSerializer(_comparison_to_file),
    WithJsonSchema(_COUNT_SCHEMA),
]


def _count_or_report(written: object) -> Comparison | Literal["report"]:
    if written == "report":
        return "report"
    try:
        return Comparison.read(written)
    except ValueError as error:
        raise ValueError(f"{error}; or report, to show without judging") from error


CountOrReport: TypeAlias = Annotated[
    Comparison | Literal["report"],
    PlainValidator(_count_or_report),
    PlainSerializer(lambda value: value if isinstance(value, str) else _comparison_to_file(value)),
    WithJsonSchema({"anyOf": [*_COUNT_SCHEMA["anyOf"], {"const": "report"}], "examples": [0, "report"]}),
]


def _from_the_root(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("the path of a request begins with `/`")
    return path


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("a path in a container begins with `/`")
    return path


def _size(written: object) -> int:
    match = _SIZE.fullmatch(str(written)) if isinstance(written, (str, int)) and not isinstance(written, bool) else None
    if match is None:
        raise ValueError("a size is expected here, such as 4096, 512Ki or 8Mi")
    size = int(match[1]) << (10 * ("", "Ki", "Mi").index(match[2]))
    if not 0 < size <= _LARGEST_FILE:
        raise ValueError("a file has at least one byte, and at most 256Mi: it passes through the API server")
    return size


def _flat_matrix(value: object) -> dict[str, tuple[str | int | bool, ...]]:
    if not isinstance(value, dict) or not all(isinstance(items, (list, tuple)) for items in value.values()):
        raise ValueError('a mapping of lists is expected here, such as {k8s: ["1.35", "1.36"]}')
    for items in value.values():
        if not all(isinstance(item, (str, int)) for item in items):
            raise ValueError("a matrix holds texts and numbers only")
    return {str(key): tuple(items) for key, items in value.items()}


def _manifest_list(value: object) -> tuple[dict[str, Any], ...]:
    objects = value if isinstance(value, (list, tuple)) else [value]
    if not objects or not all(isinstance(item, dict) for item in objects):
        raise ValueError("a Kubernetes object, or a list of them, is expected here")
    return tuple(objects)


Size: TypeAlias = Annotated[
    int,
    PlainValidator(_size),
    WithJsonSchema({
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _SIZE_PATTERN}],
        "examples": ["512Ki", "8Mi"],
    }),
]  # fmt: skip
Kind: TypeAlias = Annotated[str, AfterValidator(check_kind), Field(examples=["Pod", "Deployment.apps"])]
FieldPath: TypeAlias = Annotated[str, AfterValidator(check_field_path), Field(examples=["spec.clusterIP"])]
Objects: TypeAlias = Annotated[
    tuple[dict[str, Any], ...],
    PlainValidator(_manifest_list),
    PlainSerializer(list),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}, "minItems": 1}]}),
]
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


def _check_namespace(model: Model, kinds: tuple[str, ...], *, needed: bool) -> None:
    """Refuse a namespace where the kind has none, and its absence where that would mean all of them."""
    namespace = getattr(model, "namespace", None)
    for kind in kinds:
        base, _, group = kind.partition(".")
        if group and group not in _BUILT_IN_GROUPS and not group.endswith(".k8s.io"):
            continue  # someone's own kind, whatever its name
        if namespace and base in CLUSTER_SCOPED_KINDS:
            raise wrong(f"a {base} lives in no namespace", key="namespace")
        if needed and not namespace and base in NAMESPACED_KINDS:
            raise wrong(f"a {base} lives in a namespace; say in which, with `namespace`")


# ── The actions, in the order of the phases they first appear in ──────────────────────────────────────────


class Apply(Model):
    """Create or update objects by server-side apply, from a file beside the drill or written in place."""

    file: Text | SkipJsonSchema[None] = None
    """A YAML file, relative to the drill file; it may hold several documents."""
    files: Annotated[tuple[Text, ...], Field(min_length=1)] | SkipJsonSchema[None] = None
    """Several such files, applied in this order."""
    manifest: Objects | SkipJsonSchema[None] = None
    """One object, or a list of objects, written in the drill itself."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files to read, relative to the drill file."""
        return self.files or ((self.file,) if self.file else ())

    @model_validator(mode="after")
    def _one_source(self) -> Apply:
        self.need_one("file", "files", "manifest")
        return self


class Ready(Model):
    """Hold once all selected objects are ready, with a status that is newer than the restore."""

    kind: Kind
    """Such as Pod, Deployment or Node."""
    namespace: Label | SkipJsonSchema[None] = None
    """Where to look; every namespace when left out."""
    name: Name | SkipJsonSchema[None] = None
    """One object by its name."""
    selector: Selector | SkipJsonSchema[None] = None
    """Objects by their labels."""
    count: Count | SkipJsonSchema[None] = None
    """How many there must be; at least one when left out."""
    stable_for: Duration | SkipJsonSchema[None] = None
    """How long it must hold without a break; not counted as recovery time."""

    @model_validator(mode="after")
    def _sensible(self) -> Ready:
        self.need_one("name", "selector", optional=True)
        _check_namespace(self, (self.kind,), needed=self.name is not None)
        return self


class ExecTarget(Model):
    """The container that a command runs in: of one ready Pod, chosen by name or by labels."""

    namespace: Label
    """The Pod's namespace."""
    pod: Name | SkipJsonSchema[None] = None
    """The Pod's name."""
    selector: Selector | SkipJsonSchema[None] = None
    """Labels of the Pod; the first ready one is taken."""
    container: Label | SkipJsonSchema[None] = None
    """The container's name; the Pod's first one when left out."""

    @model_validator(mode="after")
    def _one_pod(self) -> ExecTarget:
        self.need_one("pod", "selector")
        return self


class Exec(Model):
    """Run a command in a container. A drill file cannot run anything on the machine of whoever runs it."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """The program and its arguments; no shell is put between."""
    in_: Annotated[ExecTarget, Field(alias="in")]
    """Where it runs."""
    exit_code: Annotated[int, Field(ge=0, le=255)] = 0
    """The exit code that counts as success."""
    contains: str | SkipJsonSchema[None] = None
    """Text that its standard output must contain."""


class WriteFile(Model):
    """Write a file into a container, such as into a volume that is mounted there."""

    in_: Annotated[ExecTarget, Field(alias="in")]
    """Where; the container needs `sh`, `head`, `mv`, `dirname`, `sync` and `sha256sum`."""
    path: Annotated[Text, AfterValidator(_absolute)]
    """The file, by its path in the container; the directories on the way are made."""
    size: Size | SkipJsonSchema[None] = None
    """How many random bytes, new in every run: what an earlier run left cannot pass for them."""
    content: str | SkipJsonSchema[None] = None
    """The text to write in place of random bytes."""

    @model_validator(mode="after")
    def _one_source(self) -> WriteFile:
        self.need_one("size", "content")
        return self


class EtcdSnapshot(Model):
    """Save a snapshot of one etcd member, checked while it is written."""

    name: Label
    """What later steps call it."""
    storage: Label | SkipJsonSchema[None] = None
    """A name from spec.storage; the run's own temporary store when left out."""


class StoredBackup(Model):
    """Take an etcd snapshot that a policy made before, such as last night's: the drill proves that very one."""

    name: Label
    """What later steps call it."""
    policy: Text
    """The policy file, relative to the drill file."""
    source: Label
    """A name from the policy's sources."""
    backup: Text | SkipJsonSchema[None] = None
    """The backup's name; the newest one that is not known to be damaged when left out."""
    location: Label | SkipJsonSchema[None] = None
    """A name from the policy's locations; the first that has the backup when left out."""


class VeleroBackup(Model):
    """Make a Velero backup and wait until it is complete."""

    name: Label
    """What later steps call it."""
    namespaces: tuple[Label, ...] = ()
    """What to back up; all namespaces when left out."""
    kinds: tuple[Kind, ...] = ()
    """Only these kinds, cluster-scoped ones among them; all kinds when left out."""
    selector: Selector | SkipJsonSchema[None] = None
    """Only objects with these labels."""
    cluster_scoped: bool | SkipJsonSchema[None] = None
    """true: all cluster-scoped objects; false: none; left out: those that the chosen namespaces need."""
    storage: Label | SkipJsonSchema[None] = None
    """A name from spec.storage; Velero's default location when left out."""
    volumes: Literal["fileSystem"] | SkipJsonSchema[None] = None
    """`fileSystem`: the files of all claimed volumes of Pods, too; one that is left out fails the drill."""


class CopyBackup(Model):
    """Copy a backup's objects from one storage to another, and compare their digests."""

    backup: Label
    """The backup's name."""
    from_: Annotated[Label, Field(alias="from")]
    """The storage it is in."""
    to: Label
    """The storage that gets the copy."""

    @model_validator(mode="after")
    def _two_places(self) -> CopyBackup:
        if self.from_ == self.to:
            raise wrong(f"a copy from `{self.to}` to itself is no copy", key="to")
        return self


class VerifyBackup(Model):
    """Read a backup back from where it is stored: digest, structure, revision and key count, or contents."""

    backup: Label
    """The backup's name."""
    storage: Label | SkipJsonSchema[None] = None
    """The storage to read; the one that it was made in when left out."""
    contains: Literal["scope"] | SkipJsonSchema[None] = None
    """`scope`: every object of spec.scope must be in it."""
    same_as: Label | SkipJsonSchema[None] = None
    """A storage whose copy must be equal, byte for byte."""


class _Objects(Model):
    """Objects of one kind, chosen by name or by labels."""

    kind: Kind
    """Such as Deployment."""
    namespace: Label | SkipJsonSchema[None] = None
    """Their namespace; needed for kinds that live in one."""
    name: Name | SkipJsonSchema[None] = None
    """One object by its name."""


class Delete(Model):
    """Delete objects, and wait until they are gone, replaced or stuck. Selecting none is an error."""

    kind: Kind | SkipJsonSchema[None] = None
    """The kind to delete."""
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] | SkipJsonSchema[None] = None
    """Several kinds; each must select at least one object."""
    namespace: Label | SkipJsonSchema[None] = None
    """Their namespace; needed for kinds that live in one."""
    name: Name | SkipJsonSchema[None] = None
    """One object by its name."""
    names: Annotated[tuple[Name, ...], Field(min_length=1)] | SkipJsonSchema[None] = None
    """Several objects by their names."""
    selector: Selector | SkipJsonSchema[None] = None
    """Objects by their labels."""
    all: bool = False
    """true: every object of the kind in the namespace. It must be said; it is never the default."""
    grace_period: ZeroableDuration | SkipJsonSchema[None] = None
    """How long a Pod may take to end; the Pod's own value when left out, `0s` ends it at once."""
    until: Literal["gone", "stuck"] = "gone"
    """`stuck`: the deletion has begun, and finalizers hold it; that it goes through is an error then."""

    @property
    def all_kinds(self) -> tuple[str, ...]:
        """The kinds to delete, however they were written."""
        return self.kinds or ((self.kind,) if self.kind else ())

    @property
    def all_names(self) -> tuple[str, ...]:
        """The names to delete, however they were written; empty when chosen by labels or `all`."""
        return self.names or ((self.name,) if self.name else ())

    @model_validator(mode="after")
    def _sensible(self) -> Delete:
        self.need_one("kind", "kinds")
        self.need_one("name", "names", "selector", "all")
        _check_namespace(self, self.all_kinds, needed=True)
        return self


class Scale(_Objects):
    """Set the number of replicas."""

    selector: Selector | SkipJsonSchema[None] = None
    """Objects by their labels."""
    replicas: Annotated[int, Field(ge=0)]
    """The new number."""

    @model_validator(mode="after")
    def _sensible(self) -> Scale:
        self.need_one("name", "selector")
        _check_namespace(self, (self.kind,), needed=True)
        return self


class Patch(_Objects):
    """Change one object by a JSON merge patch (RFC 7396), in which null removes a key."""

    name: Name
    """The object's name."""
    patch: Annotated[dict[str, Any], Field(min_length=1)]
    """What changes, in the shape of the object."""

    @model_validator(mode="after")
    def _sensible(self) -> Patch:
        _check_namespace(self, (self.kind,), needed=True)
        return self


class StopNode(Model):
    """Stop nodes as a power cut would: nothing on them gets time to end. Selecting none is an error."""

    name: Name | SkipJsonSchema[None] = None
    """One node by its name."""
    selector: Selector | SkipJsonSchema[None] = None
    """Nodes by their labels, such as `node-role.kubernetes.io/control-plane`."""

    @model_validator(mode="after")
    def _sensible(self) -> StopNode:
        self.need_one("name", "selector")
        return self


class StartNode(Model):
    """Start nodes that were stopped, and wait until the API server answers; they are ready a while later."""

    name: Name | SkipJsonSchema[None] = None
    """One node by its name; every node that this run stopped when left out."""


class LoseEtcd(Model):
    """Kill etcd and throw its data away, as a broken disk would: it does not come up again by itself."""


class DeleteCluster(Model):
    """Delete a whole cluster that this run created."""

    name: Label
    """A name from spec.clusters."""


class BlockStorage(Model):
    """Make a storage unreachable: a copy that needs its original is no copy."""

    name: Label
    """A name from spec.storage."""


class UnblockStorage(Model):
    """Make a blocked storage reachable again."""

    name: Label
    """A name from spec.storage."""


class EtcdRestore(Model):
    """Put a snapshot in the place of the cluster's etcd data, and bring the control plane back up on it."""

    from_: Annotated[Label, Field(alias="from")]
    """The name of an etcdSnapshot of the backup phase."""


class VeleroRestore(Model):
    """Restore a Velero backup and wait until it is complete."""

    from_: Annotated[Label, Field(alias="from")]
    """The name of a veleroBackup of the backup phase."""
    storage: Label | SkipJsonSchema[None] = None
    """The storage to restore from; the one that it was made in when left out."""
    namespaces: tuple[Label, ...] = ()
    """What to restore; all namespaces of the backup when left out."""
    kinds: tuple[Kind, ...] = ()
    """Only these kinds; all kinds when left out."""
    selector: Selector | SkipJsonSchema[None] = None
    """Only objects with these labels."""
    namespace_mapping: dict[Label, Label] = Field(default_factory=dict)
    """Old and new name of namespaces; what is verified is expected under the new one."""
    existing_resources: Literal["none", "update"] = "none"
    """`update`: objects that are there already are changed to what the backup has."""


class Restored(Model):
    """Compare everything in scope, field by field, with the baseline taken when the backup phase began."""

    missing: Count = Comparison("==", 0)
    """How many objects may be missing."""
    changed: Count = Comparison("==", 0)
    """How many objects may differ."""
    extra: CountOrReport = "report"
    """How many objects may be there that were not; `report` shows them without judging."""
    ignore: tuple[FieldPath, ...] = ()
    """Fields that may differ, beside the volatile ones that are known anyway."""
    identity: Literal["name", "uid"] = "name"
    """`uid`: an object made anew under its old name counts as changed. Left out: `uid` after an etcd restore."""


class Assert(Model):
    """Compare objects with a part of what they must look like. Finding no object is a failure."""

    resource: dict[str, Any]
    """A partial object: apiVersion and kind, then a name or labels that select, and the fields to compare."""
    match: Literal["all", "any"] = "all"
    """Whether all selected objects must match, or one is enough."""
    count: Count | SkipJsonSchema[None] = None
    """How many objects must be selected; at least one when left out."""

    @model_validator(mode="after")
    def _selects_something(self) -> Assert:
        for key in ("apiVersion", "kind"):
            if not isinstance(self.resource.get(key), str):
                raise wrong(f"resource.{key} is needed, as in a manifest", key="resource")
        metadata = self.resource.get("metadata", {})
        if not isinstance(metadata, dict):
            raise wrong("resource.metadata must be a mapping", key="resource")
        return self


class SameFiles(Model):
    """Compare every file below a path, by SHA-256, with what was there when the backup phase began."""

    in_: Annotated[ExecTarget, Field(alias="in")]
    """Where; the container needs `sh`, `find`, `sha256sum` and `wc`."""
    path: Annotated[Text, AfterValidator(_absolute)]
    """A directory or a file, by its path in the container. No file at all is an error."""


class Absent(_Objects):
    """Hold while no such object exists."""

    selector: Selector | SkipJsonSchema[None] = None
    """Objects by their labels."""

    @model_validator(mode="after")
    def _sensible(self) -> Absent:
        self.need_one("name", "selector", optional=True)
        _check_namespace(self, (self.kind,), needed=self.name is not None)
        return self


class Http(Model):
    """Ask a Service over HTTP, from inside the cluster."""

    service: Label
    """The Service's name."""
    namespace: Label
    """Its namespace."""
    port: Port
    """Its port."""
    path: Annotated[Text, AfterValidator(_from_the_root)] = "/"
    """The path to ask for."""
    status: Annotated[int, Field(ge=100, le=599)] = 200
    """The status code that must come back."""
    contains: str | SkipJsonSchema[None] = None
    """Text that the answer must contain."""


Action: TypeAlias = (
    Apply
    | Ready
    | Exec
    | WriteFile
    | EtcdSnapshot
    | StoredBackup
    | VeleroBackup
    | CopyBackup
    | VerifyBackup
    | Delete
    | Scale
    | Patch
    | StopNode
    | StartNode
    | LoseEtcd
    | DeleteCluster
    | BlockStorage
    | UnblockStorage
    | EtcdRestore
    | VeleroRestore
    | Restored
    | Assert
    | Absent
    | Http
    | SameFiles
)
"""What one step does."""


# ── Steps: one class for each phase, because a phase decides what may happen in it ────────────────────────


class Step(Model):
    """One step: exactly one action, and how it is run."""

    COMMON: ClassVar[frozenset[str]] = frozenset({"name", "cluster", "timeout"})

    name: Text | SkipJsonSchema[None] = None
    """What reports call the step; its action when left out."""
    cluster: Label | SkipJsonSchema[None] = None
    """A name from spec.clusters; the first one when left out."""
    timeout: Duration | SkipJsonSchema[None] = None
    """How long the step may take, or a check may stay red."""

    @classmethod
    def actions(cls) -> dict[str, str]:
        """Return the actions of this phase: the key in the file, and the name of the field."""
        fields = cls.model_fields.items()
        return {field.alias or name: name for name, field in fields if name not in Step.COMMON}

    @property
    def verb(self) -> str:
        """The key of the action as the file has it, such as ``etcdRestore``."""
        return next(key for key, name in self.actions().items() if getattr(self, name) is not None)

    @property
    def action(self) -> Action:
        """The one action."""
        action: Action = getattr(self, self.actions()[self.verb])
        return action

    @model_validator(mode="after")
    def _exactly_one_action(self) -> Step:
        found = [key for key, name in self.actions().items() if getattr(self, name) is not None]
        if not found:
            raise wrong(f"a step needs an action, one of {listed(list(self.actions()))}")
        if len(found) > 1:
            raise wrong(f"a step has one action; make `{'` and `'.join(found)}` steps of their own", key=found[1])
        return self


class SetupStep(Step):
    """A step that builds what the drill is about."""

    apply: Apply | SkipJsonSchema[None] = None
    ready: Ready | SkipJsonSchema[None] = None
    exec: Exec | SkipJsonSchema[None] = None
    write_file: WriteFile | SkipJsonSchema[None] = None


class BackupStep(Step):
    """A step that makes a backup, or looks at one."""

    etcd_snapshot: EtcdSnapshot | SkipJsonSchema[None] = None
    stored_backup: StoredBackup | SkipJsonSchema[None] = None
    velero_backup: VeleroBackup | SkipJsonSchema[None] = None
    copy_backup: CopyBackup | SkipJsonSchema[None] = None
    verify_backup: VerifyBackup | SkipJsonSchema[None] = None


class FaultStep(Step):
    """A step that destroys something on purpose."""

    delete: Delete | SkipJsonSchema[None] = None
    scale: Scale | SkipJsonSchema[None] = None
    apply: Apply | SkipJsonSchema[None] = None
    patch: Patch | SkipJsonSchema[None] = None
    stop_node: StopNode | SkipJsonSchema[None] = None
    lose_etcd: LoseEtcd | SkipJsonSchema[None] = None
    delete_cluster: DeleteCluster | SkipJsonSchema[None] = None
    block_storage: BlockStorage | SkipJsonSchema[None] = None
    exec: Exec | SkipJsonSchema[None] = None


class RestoreStep(Step):
    """A step of the recovery; its time counts."""

    etcd_restore: EtcdRestore | SkipJsonSchema[None] = None
    velero_restore: VeleroRestore | SkipJsonSchema[None] = None
    start_node: StartNode | SkipJsonSchema[None] = None
    patch: Patch | SkipJsonSchema[None] = None
    apply: Apply | SkipJsonSchema[None] = None
    exec: Exec | SkipJsonSchema[None] = None


class VerifyStep(Step):
    """A check: red after the fault, green after the restore."""

    restored: Restored | SkipJsonSchema[None] = None
    ready: Ready | SkipJsonSchema[None] = None
    assert_: Annotated[Assert | SkipJsonSchema[None], Field(alias="assert")] = None
    absent: Absent | SkipJsonSchema[None] = None
    http: Http | SkipJsonSchema[None] = None
    exec: Exec | SkipJsonSchema[None] = None
    same_files: SameFiles | SkipJsonSchema[None] = None


class CleanupStep(SetupStep, BackupStep, FaultStep, RestoreStep, VerifyStep):
    """A step that always runs at the end, whatever happened; any action may stand here."""

    unblock_storage: UnblockStorage | SkipJsonSchema[None] = None


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

    version: Text | SkipJsonSchema[None] = None
    """Kubernetes version, such as `1.36`."""
    workers: Annotated[int, Field(ge=0, le=20)] = 0
    """Worker nodes beside the control plane."""


class EmbeddedProvider(Model):
    """A throw-away control plane of real programs on this machine; its pods are simulated."""

    version: Text | SkipJsonSchema[None] = None
    """Kubernetes version, such as `1.36`."""
    nodes: Annotated[int, Field(ge=1, le=100)] | SkipJsonSchema[None] = None
    """How many nodes to simulate."""


class ClusterSpec(Model):
    """One cluster. Without a provider it takes the run's `--drill-cluster`."""

    kind: KindProvider | SkipJsonSchema[None] = None
    """Create it with kind."""
    embedded: EmbeddedProvider | SkipJsonSchema[None] = None
    """Create it on this machine, without Docker."""
    context: Text | SkipJsonSchema[None] = None
    """An existing cluster: a context of the user's kubeconfig. Destroying needs `--drill-allow-context`."""
    kubeconfig: Text | SkipJsonSchema[None] = None
    """An existing cluster: the current context of this file, relative to the drill file."""
    start_in: Literal["setup", "restore"] = "setup"
    """`restore`: created only then, so that its creation counts as recovery time."""

    @property
    def existing(self) -> bool:
        """Whether the cluster was there before the drill, and must be there after it."""
        return self.context is not None or self.kubeconfig is not None

    @model_validator(mode="after")
    def _one_provider(self) -> ClusterSpec:
        self.need_one("kind", "embedded", "context", "kubeconfig", optional=True)
        if self.existing and self.start_in == "restore":
            raise wrong("an existing cluster is not started by the drill", key="startIn")
        return self


class S3Storage(Model):
    """A bucket."""

    bucket: Text
    """The bucket's name."""
    prefix: Text | SkipJsonSchema[None] = None
    """Where in the bucket."""
    region: Text | SkipJsonSchema[None] = None
    """Its region."""
    endpoint: Text | SkipJsonSchema[None] = None
    """URL of an S3 server that is not Amazon's; `local` starts a throw-away one."""


class DirectoryStorage(Model):
    """A directory on this machine."""

    path: Text
    """The directory, relative to the drill file; created when it is not there."""


class StorageSpec(Model):
    """Where backups rest."""

    s3: S3Storage | SkipJsonSchema[None] = None
    """An S3 bucket."""
    directory: DirectoryStorage | SkipJsonSchema[None] = None
    """A local directory, for etcd snapshots."""

    @model_validator(mode="after")
    def _one_place(self) -> StorageSpec:
        self.need_one("s3", "directory")
        return self


class ScopeSpec(Model):
    """What must come back; everything that is not system-owned when left out."""

    namespaces: tuple[Text, ...] = ()
    """Names or globs."""
    kinds: tuple[Kind, ...] = ()
    """Kinds; all that can be listed when left out."""
    selector: Selector | SkipJsonSchema[None] = None
    """Only objects with these labels."""
    exclude: tuple[Kind, ...] = ()
    """Kinds that do not belong to it."""


class Objectives(Model):
    """What recovery is promised to take; a miss fails the drill."""

    rto: Duration | SkipJsonSchema[None] = None
    """Recovery time: from the end of the fault until all of verify holds."""
    rpo: Duration | SkipJsonSchema[None] = None
    """Data loss: the age of the newest canary that came back."""


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


def _about_stored(action: Action) -> bool:
    return isinstance(action, (StoredBackup, VerifyBackup))


class DrillSpec(Model):
    """What happens, phase by phase."""

    description: str = ""
    """One sentence for people."""
    schedule: Cron | SkipJsonSchema[None] = None
    """When it is due, in CronJob's five fields; nothing here waits for it."""
    time_zone: Text | SkipJsonSchema[None] = None
    """The schedule's time zone, such as Europe/Berlin."""
    timeout: Duration | SkipJsonSchema[None] = None
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
        return any(isinstance(step.action, StoredBackup) for step in self.backup)

    @model_validator(mode="after")
    def _a_fault_or_nothing_yet(self) -> DrillSpec:
        if not self.fault and not self.proves_stored:
            raise wrong("a drill breaks something: say what, in `fault`")
        if self.proves_stored and len(self.backup) > len([s for s in self.backup if _about_stored(s.action)]):
            raise wrong("a `storedBackup` is proven by itself: leave the other backups to another drill", key="backup")
        return self

    @model_validator(mode="after")
    def _time_zone_of_a_schedule(self) -> DrillSpec:
        if self.time_zone and not self.schedule:
            raise wrong("a time zone without a `schedule` means nothing", key="timeZone")
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
    for step in (SetupStep, BackupStep, FaultStep, RestoreStep, VerifyStep, CleanupStep):
        definitions[step.__name__]["oneOf"] = [{"required": [action]} for action in step.actions()]


def drill_schema_text() -> str:
    """Return the JSON Schema as the text that is published."""
    return schema_text(drill_schema())
