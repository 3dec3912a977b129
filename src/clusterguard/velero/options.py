"""What a backup or a restore can be asked for, and how the specs of Velero's resources say it.

Everything that the ``velero`` command line offers has a name here; what a newer server adds travels in ``extra``.
Source of the fields and of the rules: Velero's API types and its own checks, as of Velero 1.18.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args, get_type_hints

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from clusterguard.errors import ConfigError
from clusterguard.velero.durations import go_duration, parse_go_duration
from clusterguard.velero.selectors import LabelSelector

__all__ = ["BackupOptions", "ExistingResourcePolicy", "RestoreOptions"]

# ---- how options are written in a spec ---------------------------------------------------------------------

Manifest: TypeAlias = Mapping[str, Any]
ExistingResourcePolicy: TypeAlias = Literal["none", "update"]
Names: TypeAlias = tuple[str, ...]
Duration: TypeAlias = Annotated[
    timedelta | None, BeforeValidator(lambda text: parse_go_duration(str(text))), PlainSerializer(go_duration)
]
ConfigMap: TypeAlias = Annotated[
    str,
    BeforeValidator(lambda reference: reference.get("name") if isinstance(reference, dict) else None),
    PlainSerializer(lambda name: {"kind": "configmap", "name": name}),
]
Ordered: TypeAlias = Annotated[
    Mapping[str, Names] | None,
    BeforeValidator(lambda kinds: {kind: str(names).split(",") for kind, names in dict(kinds).items()}),
    PlainSerializer(lambda kinds: {kind: ",".join(names) for kind, names in kinds.items()}),
]
_UNSET: tuple[object, ...] = (None, (), "", {})
_Path: TypeAlias = tuple[str, ...]


@cache
def _codecs(kind: type) -> Mapping[str, tuple[_Path, TypeAdapter[Any]]]:
    """Return where each option is in a spec, and its type; a path other than the name's own is in the annotation."""
    found = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if name not in {"labels", "annotations", "extra"}:
            path = next((each for each in get_args(hint) if isinstance(each, str)), to_camel(name))
            found[name] = (tuple(path.split(".")), TypeAdapter[Any](hint))
    return found


def _dump(adapter: TypeAdapter[Any], value: object) -> Any:  # noqa: ANN401 - any JSON
    return adapter.dump_python(value, mode="json", by_alias=True, exclude_defaults=True)


def _read(spec: Manifest, path: _Path, adapter: TypeAdapter[Any]) -> object:
    """Return an option of a spec; None where writing it again would not give exactly what is there."""
    there: Any = spec
    for part in path:
        there = there.get(part) if isinstance(there, dict) else None
    try:
        value = adapter.validate_python(there)
        same = json.dumps(_dump(adapter, value), sort_keys=True) == json.dumps(there, sort_keys=True)
    except (ValidationError, TypeError):
        return None
    return value if same else None


def _put(spec: dict[str, Any], path: _Path, value: object) -> None:
    *parents, last = path
    for part in parents:
        spec = spec.setdefault(part, {})
    spec[last] = value


def _without_empty_selectors(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec without selectors that select everything: Velero cannot read ``{}``, and lists no object then."""
    if spec.get("labelSelector") == {}:
        del spec["labelSelector"]
    several = spec.get("orLabelSelectors")
    if isinstance(several, list) and {} in several:
        del spec["orLabelSelectors"]
    return spec


def _remove(spec: dict[str, Any], path: _Path) -> None:
    first, *rest = path
    if rest:
        _remove(spec[first], tuple(rest))
    if not rest or not spec[first]:
        del spec[first]


# ---- what can be asked for ---------------------------------------------------------------------------------


class _Options:
    """Options, and how they are written in a spec."""

    __slots__ = ()

    def to_spec(self) -> dict[str, Any]:
        """Return the spec that asks for this; the server's defaults are left out.

        Raises:
            ConfigError: It contradicts itself.
        """
        problems = tuple(self.problems())
        if problems:
            raise ConfigError("; ".join(problems), code="contradictory-options", hint="the server was not asked")
        spec: dict[str, Any] = deepcopy(dict(getattr(self, "extra")))  # noqa: B009 - a field of the subclasses
        kind: type = type(self)
        for name, (path, adapter) in _codecs(kind).items():
            value = getattr(self, name)
            if value not in _UNSET:
                _put(spec, path, _dump(adapter, value))
        return _without_empty_selectors(spec)

    @classmethod
    def from_spec(
        cls,
        spec: Manifest,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the options of a spec; what this release has no name for is kept in ``extra``."""
        extra = deepcopy(dict(spec))
        known: dict[str, Any] = {"labels": dict(labels or {}), "annotations": dict(annotations or {})}
        kind: type = cls
        for name, (path, adapter) in _codecs(kind).items():
            value = _read(extra, path, adapter)
            if value not in _UNSET:
                known[name] = value
                _remove(extra, path)
        return cls(extra=extra, **known)  # type: ignore[call-arg] # fields of the subclasses

    def problems(self) -> Iterator[str]:
        """Yield what contradicts itself, as the server would find it."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions(_Options):
    """What a backup is asked for; everything left out is the server's default.

    There are two families of filters, and Velero refuses to mix them: the *old* ones
    (``included_resources``, ``excluded_resources``, ``include_cluster_resources``) and the *new* ones, which tell
    cluster-scoped from namespaced kinds.

    Attributes:
        included_namespaces: Names, and globs since Velero 1.18; empty for all.
        included_resources: Kinds as ``deployments.apps``.
        include_cluster_resources: Objects without a namespace: all, none, or (None) those that belong to
            something in the backup.
        or_label_selectors: Only objects that one of these matches; not together with ``label_selector``.
        snapshot_move_data: Move the snapshots' data into the location, by ``data_mover`` or Velero's own.
        default_volumes_to_fs_backup: Back pod volumes up by their files unless a pod says otherwise.
        storage_location: The default one when empty.
        volume_snapshot_locations: For native snapshots, at most one for each provider.
        volume_group_snapshot_label_key: Label that groups volumes snapshotted at one moment.
        ttl: How long Velero keeps it; 30 days by the server's default.
        item_operation_timeout: How long to wait for the asynchronous work of plugins.
        hooks: Commands to run in pods, as ``spec.hooks.resources`` has them.
        ordered_resources: Objects of a kind to back up first, in this order: ``{"pods": ("shop/db", "shop/web")}``.
        resource_policy: ConfigMap in Velero's namespace with rules for volumes.
        parallel_files_upload: Files of one volume uploaded at a time.
        labels: Of the Backup object, like ``annotations``.
        extra: Further fields of the spec, as they are.
    """

    included_namespaces: Names = ()
    excluded_namespaces: Names = ()
    included_resources: Names = ()
    excluded_resources: Names = ()
    include_cluster_resources: bool | None = None
    included_cluster_scoped_resources: Names = ()
    excluded_cluster_scoped_resources: Names = ()
    included_namespace_scoped_resources: Names = ()
    excluded_namespace_scoped_resources: Names = ()
    label_selector: LabelSelector | None = None
    or_label_selectors: tuple[LabelSelector, ...] = ()
    snapshot_volumes: bool | None = None
    snapshot_move_data: bool | None = None
    data_mover: Annotated[str, "datamover"] = ""
    default_volumes_to_fs_backup: bool | None = None
    storage_location: str = ""
    volume_snapshot_locations: Names = ()
    volume_group_snapshot_label_key: str = ""
    ttl: Duration = None
    csi_snapshot_timeout: Duration = None
    item_operation_timeout: Duration = None
    hooks: Annotated[tuple[dict[str, Any], ...], "hooks.resources"] = ()
    ordered_resources: Ordered = None
    resource_policy: ConfigMap = ""
    parallel_files_upload: Annotated[int | None, "uploaderConfig.parallelFilesUpload"] = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def problems(self) -> Iterator[str]:
        """Yield what contradicts itself, as the server would find it."""
        old = ("included_resources", "excluded_resources", "include_cluster_resources")
        new = tuple(f"{word}_{scope}_scoped_resources" for word in ("included", "excluded") for scope in _SCOPES)
        used_old = [name for name in old if getattr(self, name) not in ((), None)]
        used_new = [name for name in new if getattr(self, name)]
        if used_old and used_new:
            yield f"old filters ({', '.join(used_old)}) and new ones ({', '.join(used_new)}) exclude each other"
        yield from _selector_problems(self.label_selector, self.or_label_selectors)
        yield from _list_problems("namespaces", self.included_namespaces, self.excluded_namespaces)
        yield from _list_problems("resources", self.included_resources, self.excluded_resources)
        for scope in _SCOPES:
            included = getattr(self, f"included_{scope}_scoped_resources")
            excluded = getattr(self, f"excluded_{scope}_scoped_resources")
            yield from _list_problems(f"{scope}-scoped resources", included, excluded, scoped=True)
        for name in ("ttl", "csi_snapshot_timeout", "item_operation_timeout"):
            yield from _duration_problems(name, getattr(self, name))
        yield from _count_problems("parallel_files_upload", self.parallel_files_upload)
        yield from self._without_effect()

    def _without_effect(self) -> Iterator[str]:
        """Yield what Velero accepts and then never does."""
        if self.snapshot_move_data and self.snapshot_volumes is False:
            yield "snapshot_move_data has no snapshots to move: snapshot_volumes is false"
        if self.data_mover and not self.snapshot_move_data:
            yield "data_mover does nothing without snapshot_move_data"
        for hook in self.hooks:
            if not hook.get("pre") and not hook.get("post"):
                yield f"hook {hook.get('name', '')!r} has neither pre nor post"

    # ---- what the filters let in -------------------------------------------------------------------------

    @property
    def chooses_no_namespace(self) -> bool:
        """Whether it is of all namespaces, but for those that are excluded."""
        return not self.included_namespaces or "*" in self.included_namespaces

    @property
    def asks_for_cluster_scoped(self) -> bool:
        """Whether all cluster-scoped objects are in it that its kinds and labels allow.

        Otherwise Velero adds those that an object of a namespace refers to (and since 1.18 that goes for a backup
        without any filter, too: its server excludes the contents of volume snapshots by itself).
        """
        if self.include_cluster_resources is not None:
            return self.include_cluster_resources
        if self.included_cluster_scoped_resources or "*" in self.excluded_cluster_scoped_resources:
            return "*" in self.included_cluster_scoped_resources
        old_filters = bool(self.included_resources or self.excluded_resources)
        return old_filters and self.chooses_no_namespace and not self.excluded_namespaces

    @property
    def asks_for_volumes(self) -> bool:
        """Whether the data of volumes is asked for, and not left to what the server does by itself."""
        return bool(self.default_volumes_to_fs_backup or self.snapshot_volumes or self.snapshot_move_data)

    def with_cluster_scoped(self) -> Self:
        """Return the same, and all cluster-scoped objects where nothing was said of them and no namespace chosen."""
        decided = (
            self.include_cluster_resources is not None
            or self.included_cluster_scoped_resources
            or "*" in self.excluded_cluster_scoped_resources
        )
        if decided or not self.chooses_no_namespace:
            return self
        if self.included_resources or self.excluded_resources:
            return replace(self, include_cluster_resources=True)
        return replace(self, included_cluster_scoped_resources=("*",))

    def names_kind(self, resource: str) -> bool:
        """Return whether a cluster-scoped resource is asked for by name."""
        return _names(resource, (*self.included_resources, *self.included_cluster_scoped_resources))

    def wants_namespace(self, name: str) -> bool:
        """Return whether what is in a namespace is asked for, if its kind and labels are."""
        included = self.chooses_no_namespace or any(fnmatchcase(name, each) for each in self.included_namespaces)
        return included and not any(fnmatchcase(name, each) for each in self.excluded_namespaces)

    def wants_kind(self, resource: str, *, namespaced: bool) -> bool:
        """Return whether all objects of a kind that its namespaces and labels allow are asked for."""
        if not namespaced:
            return not self.leaves_kind_out(resource) and (self.asks_for_cluster_scoped or self.names_kind(resource))
        included = (*self.included_resources, *self.included_namespace_scoped_resources)
        excluded = (*self.excluded_resources, *self.excluded_namespace_scoped_resources)
        wanted = not included or "*" in included or _names(resource, included)
        return wanted and "*" not in excluded and not _names(resource, excluded)

    def leaves_kind_out(self, resource: str) -> bool:
        """Return whether a cluster-scoped resource is left out by decision: by name, or with all of its scope."""
        excluded = (*self.excluded_resources, *self.excluded_cluster_scoped_resources)
        return self.include_cluster_resources is False or "*" in excluded or _names(resource, excluded)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions(_Options):
    """What a restore is asked for; everything left out is the server's default.

    Attributes:
        included_namespaces: Empty for all in the backup.
        included_resources: Kinds as ``deployments.apps``; empty for all in the backup.
        include_cluster_resources: Objects without a namespace: all, none, or (None) those that belong to
            something restored.
        or_label_selectors: Only objects that one of these matches; not together with ``label_selector``.
        namespace_mapping: From the name in the backup to that in the cluster.
        restore_volumes: Restore volumes from their snapshots.
        status_included_resources: Kinds whose ``status`` is restored too.
        existing_resource_policy: For an object that exists and differs: ``none`` leaves it (with a warning),
            ``update`` changes it.
        hooks: Commands and init containers for restored pods, as ``spec.hooks.resources`` has them.
        item_operation_timeout: How long to wait for the asynchronous work of plugins.
        resource_modifier: ConfigMap in Velero's namespace with patches to apply to objects.
        resource_policy: ConfigMap in Velero's namespace with filters.
        write_sparse_files: Restore files with holes as such.
        parallel_files_download: Files of one volume downloaded at a time.
        labels: Of the Restore object, like ``annotations``.
        extra: Further fields of the spec, as they are.
    """

    included_namespaces: Names = ()
    excluded_namespaces: Names = ()
    included_resources: Names = ()
    excluded_resources: Names = ()
    include_cluster_resources: bool | None = None
    label_selector: LabelSelector | None = None
    or_label_selectors: tuple[LabelSelector, ...] = ()
    namespace_mapping: Mapping[str, str] | None = None
    restore_volumes: Annotated[bool | None, "restorePVs"] = None
    status_included_resources: Annotated[Names, "restoreStatus.includedResources"] = ()
    status_excluded_resources: Annotated[Names, "restoreStatus.excludedResources"] = ()
    preserve_node_ports: bool | None = None
    existing_resource_policy: ExistingResourcePolicy | Literal[""] = ""
    hooks: Annotated[tuple[dict[str, Any], ...], "hooks.resources"] = ()
    item_operation_timeout: Duration = None
    resource_modifier: ConfigMap = ""
    resource_policy: ConfigMap = ""
    write_sparse_files: Annotated[bool | None, "uploaderConfig.writeSparseFiles"] = None
    parallel_files_download: Annotated[int | None, "uploaderConfig.parallelFilesDownload"] = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chooses_no_namespace(self) -> bool:
        """Whether it is of all namespaces of the backup, but for those that are excluded."""
        return not self.included_namespaces or "*" in self.included_namespaces

    def with_cluster_scoped(self) -> Self:
        """Return the same, and all cluster-scoped objects where nothing was said of them and no namespace chosen.

        Velero restores them by itself only where no namespace is excluded either; with one, it leaves most of them out
        without a word (1.18.3).
        """
        if self.include_cluster_resources is None and self.excluded_namespaces and self.chooses_no_namespace:
            return replace(self, include_cluster_resources=True)
        return self

    def problems(self) -> Iterator[str]:
        """Yield what contradicts itself, as the server would find it."""
        yield from _selector_problems(self.label_selector, self.or_label_selectors)
        yield from _list_problems("namespaces", self.included_namespaces, self.excluded_namespaces)
        yield from _list_problems("resources", self.included_resources, self.excluded_resources)
        yield from _list_problems("status", self.status_included_resources, self.status_excluded_resources)
        if self.existing_resource_policy not in {"", "none", "update"}:
            yield f"existing_resource_policy is {self.existing_resource_policy!r}, neither none nor update"
        for source, target in (self.namespace_mapping or {}).items():
            if not source or not target:
                yield f"namespace_mapping has an empty name: {source!r} to {target!r}"
            elif _is_left_out(source, self.included_namespaces, self.excluded_namespaces):
                yield f"namespace_mapping has {source!r}, which is not restored"
        yield from _duration_problems("item_operation_timeout", self.item_operation_timeout)
        yield from _count_problems("parallel_files_download", self.parallel_files_download)


_SCOPES = ("cluster", "namespace")


def _names(resource: str, words: Names) -> bool:
    """Return whether words, as people write kinds, name a resource (``namespaces``, ``things.example.com``)."""
    plural, _, group = resource.partition(".")
    wanted = {plural, plural.removesuffix("s"), resource, f"{plural.removesuffix('s')}.{group}"}
    return any(word.lower() in wanted for word in words)


def _selector_problems(one: LabelSelector | None, several: Sequence[LabelSelector]) -> Iterator[str]:
    if one is not None and several:
        yield "label_selector and or_label_selectors exclude each other"
    for selector in (one, *several) if one is not None else several:
        for each in selector.requirements:
            if (each.operator in {"In", "NotIn"}) != bool(each.values):
                yield f"label {each.key}: {each.operator} with {len(each.values)} values"


def _list_problems(what: str, included: Names, excluded: Names, *, scoped: bool = False) -> Iterator[str]:
    if "*" in included and len(set(included)) > 1:
        yield f"included {what}: * includes the others already"
    both = sorted(set(included) & set(excluded) - {"*"})
    if both:
        yield f"{what} both included and excluded: {', '.join(both)}"
    if "*" in excluded and not scoped:
        yield f"excluded {what}: * would leave nothing"
    elif "*" in excluded and (included or len(set(excluded)) > 1):
        yield f"excluded {what}: * leaves no room for others, included or excluded"


def _is_left_out(namespace: str, included: Names, excluded: Names) -> bool:
    within = not included or any(fnmatchcase(namespace, pattern) for pattern in included)
    return not within or any(fnmatchcase(namespace, pattern) for pattern in excluded)


def _duration_problems(name: str, value: timedelta | None) -> Iterator[str]:
    if value is not None and value <= timedelta():
        yield f"{name} is {value}, not above zero"


def _count_problems(name: str, value: int | None) -> Iterator[str]:
    if value is not None and value < 0:
        yield f"{name} is {value}, below zero"
