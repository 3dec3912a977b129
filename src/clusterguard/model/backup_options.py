"""What a backup or a restore can be asked for, and the way to and from the specs of Velero's objects.

Everything that the ``velero`` command line offers has a name here; what a newer server adds travels in ``extra``.
Source of the fields and of the rules: Velero's API types and its own checks, as of Velero 1.18.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias, cast

from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "BackupOptions",
    "ExistingResourcePolicy",
    "LabelRequirement",
    "LabelSelector",
    "RestoreOptions",
    "go_duration",
    "parse_go_duration",
]

Manifest: TypeAlias = "Mapping[str, Any]"
ExistingResourcePolicy: TypeAlias = Literal["none", "update"]

# ---- label selectors ---------------------------------------------------------------------------------------

_Operator: TypeAlias = Literal["In", "NotIn", "Exists", "DoesNotExist"]
_SETS = re.compile(r"^(?P<key>[^\s=!,()]+)\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALS = re.compile(r"^(?P<key>[^\s=!,()]+)\s*(?P<sign>==|=|!=)\s*(?P<value>[^\s=!,()]*)$")
_EXISTS = re.compile(r"^(?P<no>!\s*)?(?P<key>[^\s=!,()]+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRequirement:
    """One condition on one label."""

    key: str
    operator: _Operator
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        match self.operator:
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
            case "In":
                return f"{self.key} in ({','.join(self.values)})"
            case _:
                return f"{self.key} notin ({','.join(self.values)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """Conditions on labels, all of which must hold.

    Attributes:
        labels: Labels with exactly these values.
        requirements: Further conditions.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[LabelRequirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a selector as kubectl's ``-l`` takes it: ``app=web,tier!=db,env in (a,b),!legacy``.

        Raises:
            ConfigError: It is none.
        """
        labels: dict[str, str] = {}
        requirements: list[LabelRequirement] = []
        for part in _split_selector(text):
            if (match := _EQUALS.match(part)) and match["sign"] != "!=" and match["key"] not in labels:
                labels[match["key"]] = match["value"]
            elif match:
                operator: _Operator = "NotIn" if match["sign"] == "!=" else "In"
                requirements.append(
                    LabelRequirement(key=match["key"], operator=operator, values=(match["value"],)),
                )
            elif match := _SETS.match(part):
                values = tuple(value.strip() for value in match["values"].split(","))
                operator = "In" if match["word"] == "in" else "NotIn"
                requirements.append(LabelRequirement(key=match["key"], operator=operator, values=values))
            elif match := _EXISTS.match(part):
                operator = "DoesNotExist" if match["no"] else "Exists"
                requirements.append(LabelRequirement(key=match["key"], operator=operator))
            else:
                raise ConfigError(f"{part!r} is no label selector", hint="write it like app=web,tier!=db,!legacy")
        return cls(labels=labels, requirements=tuple(requirements))

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Self:
        """Return the selector that ``matchLabels`` and ``matchExpressions`` describe."""
        return cls(
            labels=dict(manifest.get("matchLabels") or {}),
            requirements=tuple(
                LabelRequirement(
                    key=str(each["key"]), operator=each["operator"], values=tuple(each.get("values") or ())
                )
                for each in manifest.get("matchExpressions") or ()
            ),
        )

    def to_manifest(self) -> dict[str, Any]:
        """Return it as ``matchLabels`` and ``matchExpressions``."""
        manifest: dict[str, Any] = {}
        if self.labels:
            manifest["matchLabels"] = dict(self.labels)
        if self.requirements:
            manifest["matchExpressions"] = [
                {"key": each.key, "operator": each.operator} | ({"values": list(each.values)} if each.values else {})
                for each in self.requirements
            ]
        return manifest

    def __str__(self) -> str:
        return ",".join([*(f"{key}={value}" for key, value in self.labels.items()), *map(str, self.requirements)])


def _split_selector(text: str) -> Iterator[str]:
    """Yield the parts between commas, except those inside parentheses."""
    for part in re.split(r",(?![^()]*\))", text):
        if not part.strip():
            raise ConfigError(f"{text!r} is no label selector: a part of it is empty")
        yield part.strip()


# ---- durations ------------------------------------------------------------------------------------------------

_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def parse_go_duration(text: str) -> timedelta:
    """Read a duration as Go writes it: ``720h0m0s``, ``1.5s``, ``0s``.

    Raises:
        ValueError: It is none.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    parts = _GO_PART.findall(rest)
    if rest != "0" and (not parts or "".join(number + unit for number, unit in parts) != rest):
        raise ValueError(f"{text!r} is no duration")
    try:
        return sign * timedelta(seconds=math.fsum(float(number) * _GO_UNITS[unit] for number, unit in parts))
    except OverflowError as error:
        raise ValueError(f"{text!r} is longer than any duration") from error


def go_duration(value: timedelta) -> str:
    """Write a duration as Go does: ``720h0m0s``, ``1.5s``, ``250ms``, ``0s``."""
    sign = "-" if value < timedelta() else ""
    microseconds = abs(value) // timedelta(microseconds=1)
    if not microseconds:
        return "0s"
    if microseconds < 1_000:  # noqa: PLR2004 - a millisecond
        return f"{sign}{microseconds}µs"
    if microseconds < 1_000_000:  # noqa: PLR2004 - a second
        return f"{sign}{_decimal(microseconds, 1_000)}ms"
    minutes, rest = divmod(microseconds, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 1_000_000)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"


def _decimal(value: int, unit: int) -> str:
    whole, part = divmod(value, unit)
    digits = str(part).zfill(len(str(unit)) - 1).rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


# ---- how options are written in a spec ---------------------------------------------------------------------


class _UnreadableError(Exception):
    """A value of a shape that this release does not know: it stays in ``extra`` as it is."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """The way from a value to JSON and back."""

    write: Callable[[Any], object]
    read: Callable[[object], object]


@dataclass(frozen=True, slots=True)
class _Field:
    """Where an option is in a spec, and in which shape."""

    path: tuple[str, ...]
    shape: _Shape


_UNSET: tuple[object, ...] = (None, (), "", {})


def _read_strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise _UnreadableError
    return tuple(value)


def _read_string(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _UnreadableError
    return value


def _read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _UnreadableError
    return value


def _read_count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _UnreadableError
    return value


def _read_duration(value: object) -> timedelta:
    try:
        found = parse_go_duration(str(value))
    except ValueError as error:
        raise _UnreadableError from error
    if go_duration(found) != value:
        raise _UnreadableError  # "1h" means "1h0m0s", but what is not written as the server does is left as it is
    return found


def _read_mapping(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not value or not all(isinstance(item, str) for item in value.values()):
        raise _UnreadableError
    return dict(value)


def _read_selector(value: object) -> LabelSelector:
    try:
        selector = LabelSelector.from_manifest(cast("Manifest", value))
        same = selector.to_manifest() == value
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise _UnreadableError from error
    if not same:
        raise _UnreadableError
    return selector


def _read_selectors(value: object) -> tuple[LabelSelector, ...]:
    if not isinstance(value, list) or not value:
        raise _UnreadableError
    return tuple(_read_selector(each) for each in value)


def _write_selectors(value: Sequence[LabelSelector]) -> list[dict[str, Any]]:
    return [each.to_manifest() for each in value]


def _read_objects(value: object) -> tuple[Manifest, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise _UnreadableError
    return tuple(value)


def _read_config_map(value: object) -> str:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name or value != _write_config_map(name):
        raise _UnreadableError
    return name


def _write_config_map(name: str) -> dict[str, str]:
    return {"kind": "configmap", "name": name}


def _read_ordered(value: object) -> dict[str, tuple[str, ...]]:
    return {kind: tuple(names.split(",")) for kind, names in _read_mapping(value).items()}


def _write_ordered(value: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {kind: ",".join(names) for kind, names in value.items()}


_STRINGS = _Shape(list, _read_strings)
_STRING = _Shape(str, _read_string)
_FLAG = _Shape(bool, _read_flag)
_COUNT = _Shape(int, _read_count)
_DURATION = _Shape(go_duration, _read_duration)
_MAPPING = _Shape(dict, _read_mapping)
_SELECTOR = _Shape(LabelSelector.to_manifest, _read_selector)
_SELECTORS = _Shape(_write_selectors, _read_selectors)
_OBJECTS = _Shape(list, _read_objects)
_CONFIG_MAP = _Shape(_write_config_map, _read_config_map)
_ORDERED = _Shape(_write_ordered, _read_ordered)

_BACKUP_FIELDS: Mapping[str, _Field] = {
    "included_namespaces": _Field(("includedNamespaces",), _STRINGS),
    "excluded_namespaces": _Field(("excludedNamespaces",), _STRINGS),
    "included_resources": _Field(("includedResources",), _STRINGS),
    "excluded_resources": _Field(("excludedResources",), _STRINGS),
    "include_cluster_resources": _Field(("includeClusterResources",), _FLAG),
    "included_cluster_scoped_resources": _Field(("includedClusterScopedResources",), _STRINGS),
    "excluded_cluster_scoped_resources": _Field(("excludedClusterScopedResources",), _STRINGS),
    "included_namespace_scoped_resources": _Field(("includedNamespaceScopedResources",), _STRINGS),
    "excluded_namespace_scoped_resources": _Field(("excludedNamespaceScopedResources",), _STRINGS),
    "label_selector": _Field(("labelSelector",), _SELECTOR),
    "or_label_selectors": _Field(("orLabelSelectors",), _SELECTORS),
    "snapshot_volumes": _Field(("snapshotVolumes",), _FLAG),
    "snapshot_move_data": _Field(("snapshotMoveData",), _FLAG),
    "data_mover": _Field(("datamover",), _STRING),
    "default_volumes_to_fs_backup": _Field(("defaultVolumesToFsBackup",), _FLAG),
    "storage_location": _Field(("storageLocation",), _STRING),
    "volume_snapshot_locations": _Field(("volumeSnapshotLocations",), _STRINGS),
    "volume_group_snapshot_label_key": _Field(("volumeGroupSnapshotLabelKey",), _STRING),
    "ttl": _Field(("ttl",), _DURATION),
    "csi_snapshot_timeout": _Field(("csiSnapshotTimeout",), _DURATION),
    "item_operation_timeout": _Field(("itemOperationTimeout",), _DURATION),
    "hooks": _Field(("hooks", "resources"), _OBJECTS),
    "ordered_resources": _Field(("orderedResources",), _ORDERED),
    "resource_policy": _Field(("resourcePolicy",), _CONFIG_MAP),
    "parallel_files_upload": _Field(
        (
            "uploaderConfig",
            "parallelFilesUpload",
        ),
        _COUNT,
    ),
}
_RESTORE_FIELDS: Mapping[str, _Field] = {
    "included_namespaces": _Field(("includedNamespaces",), _STRINGS),
    "excluded_namespaces": _Field(("excludedNamespaces",), _STRINGS),
    "included_resources": _Field(("includedResources",), _STRINGS),
    "excluded_resources": _Field(("excludedResources",), _STRINGS),
    "include_cluster_resources": _Field(("includeClusterResources",), _FLAG),
    "label_selector": _Field(("labelSelector",), _SELECTOR),
    "or_label_selectors": _Field(("orLabelSelectors",), _SELECTORS),
    "namespace_mapping": _Field(("namespaceMapping",), _MAPPING),
    "restore_volumes": _Field(("restorePVs",), _FLAG),
    "status_included_resources": _Field(
        (
            "restoreStatus",
            "includedResources",
        ),
        _STRINGS,
    ),
    "status_excluded_resources": _Field(
        (
            "restoreStatus",
            "excludedResources",
        ),
        _STRINGS,
    ),
    "preserve_node_ports": _Field(("preserveNodePorts",), _FLAG),
    "existing_resource_policy": _Field(("existingResourcePolicy",), _STRING),
    "hooks": _Field(("hooks", "resources"), _OBJECTS),
    "item_operation_timeout": _Field(("itemOperationTimeout",), _DURATION),
    "resource_modifier": _Field(("resourceModifier",), _CONFIG_MAP),
    "resource_policy": _Field(("resourcePolicy",), _CONFIG_MAP),
    "write_sparse_files": _Field(
        (
            "uploaderConfig",
            "writeSparseFiles",
        ),
        _FLAG,
    ),
    "parallel_files_download": _Field(
        (
            "uploaderConfig",
            "parallelFilesDownload",
        ),
        _COUNT,
    ),
}


def _deep_copy(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {key: _deep_copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_deep_copy(item) for item in value]
    return value


def _take(spec: Manifest, path: Sequence[str]) -> Any:  # noqa: ANN401 - any JSON
    value: Any = spec
    for part in path:
        if not isinstance(value, dict) or part not in value:
            raise _UnreadableError
        value = value[part]
    return value


def _put(spec: dict[str, Any], path: Sequence[str], value: object) -> None:
    *parents, last = path
    for part in parents:
        spec = spec.setdefault(part, {})
    spec[last] = value


def _remove(spec: dict[str, Any], path: Sequence[str]) -> None:
    first, *rest = path
    if rest:
        _remove(spec[first], rest)
    if not rest or not spec[first]:
        del spec[first]


# ---- what can be asked for ---------------------------------------------------------------------------------


class _Options:
    """The way between options and a spec, told by a table of fields."""

    __slots__ = ()
    _table: ClassVar[Mapping[str, _Field]]

    def to_spec(self) -> dict[str, Any]:
        """Return the spec that asks for this; the server's defaults are left out.

        Raises:
            ConfigError: It contradicts itself.
        """
        problems = tuple(self.problems())
        if problems:
            raise ConfigError("; ".join(problems), hint="nothing was asked of the server")
        spec: dict[str, Any] = _deep_copy(getattr(self, "extra"))  # noqa: B009 - a field of the subclasses
        for name, how in self._table.items():
            value = getattr(self, name)
            if value not in _UNSET:
                _put(spec, how.path, how.shape.write(value))
        return spec

    @classmethod
    def from_spec(
        cls,
        spec: Manifest,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the options of a spec; what this release has no name for is kept in ``extra``."""
        extra = _deep_copy(spec)
        known: dict[str, Any] = {"labels": dict(labels or {}), "annotations": dict(annotations or {})}
        for name, how in cls._table.items():
            try:
                known[name] = how.shape.read(_take(extra, how.path))
            except _UnreadableError:
                continue
            _remove(extra, how.path)
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
        excluded_namespaces: Likewise, to leave out.
        included_resources: Kinds as ``deployments.apps``; old family.
        excluded_resources: Likewise, to leave out; old family.
        include_cluster_resources: Objects without a namespace: all, none, or (None) those that belong to
            something in the backup; old family.
        included_cluster_scoped_resources: Kinds without namespaces; new family.
        excluded_cluster_scoped_resources: Likewise, to leave out; new family.
        included_namespace_scoped_resources: Kinds with namespaces; new family.
        excluded_namespace_scoped_resources: Likewise, to leave out; new family.
        label_selector: Only objects with these labels.
        or_label_selectors: Only objects that one of these matches; not together with ``label_selector``.
        snapshot_volumes: Take volume snapshots.
        snapshot_move_data: Move the snapshots' data into the location.
        data_mover: Who moves it; Velero's own by default.
        default_volumes_to_fs_backup: Back pod volumes up by their files unless a pod says otherwise.
        storage_location: Where to; the default location when empty.
        volume_snapshot_locations: Where native snapshots go, at most one for each provider.
        volume_group_snapshot_label_key: Label that groups volumes snapshotted at one moment.
        ttl: How long Velero keeps it; 30 days by the server's default.
        csi_snapshot_timeout: How long to wait for a CSI snapshot.
        item_operation_timeout: How long to wait for the asynchronous work of plugins.
        hooks: Commands to run in pods, as ``spec.hooks.resources`` has them.
        ordered_resources: Objects of a kind to back up first, in this order: ``{"pods": ("shop/db", "shop/web")}``.
        resource_policy: ConfigMap in Velero's namespace with rules for volumes.
        parallel_files_upload: Files of one volume uploaded at a time.
        labels: Of the Backup object.
        annotations: Likewise.
        extra: Further fields of the spec, as they are.
    """

    _table: ClassVar[Mapping[str, _Field]] = _BACKUP_FIELDS

    included_namespaces: tuple[str, ...] = ()
    excluded_namespaces: tuple[str, ...] = ()
    included_resources: tuple[str, ...] = ()
    excluded_resources: tuple[str, ...] = ()
    include_cluster_resources: bool | None = None
    included_cluster_scoped_resources: tuple[str, ...] = ()
    excluded_cluster_scoped_resources: tuple[str, ...] = ()
    included_namespace_scoped_resources: tuple[str, ...] = ()
    excluded_namespace_scoped_resources: tuple[str, ...] = ()
    label_selector: LabelSelector | None = None
    or_label_selectors: tuple[LabelSelector, ...] = ()
    snapshot_volumes: bool | None = None
    snapshot_move_data: bool | None = None
    data_mover: str = ""
    default_volumes_to_fs_backup: bool | None = None
    storage_location: str = ""
    volume_snapshot_locations: tuple[str, ...] = ()
    volume_group_snapshot_label_key: str = ""
    ttl: timedelta | None = None
    csi_snapshot_timeout: timedelta | None = None
    item_operation_timeout: timedelta | None = None
    hooks: tuple[Manifest, ...] = ()
    ordered_resources: Mapping[str, tuple[str, ...]] | None = None
    resource_policy: str = ""
    parallel_files_upload: int | None = None
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
            yield from _scoped_list_problems(f"{scope}-scoped resources", included, excluded)
        for name in ("ttl", "csi_snapshot_timeout", "item_operation_timeout"):
            yield from _duration_problems(name, getattr(self, name))
        yield from _count_problems("parallel_files_upload", self.parallel_files_upload)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions(_Options):
    """What a restore is asked for; everything left out is the server's default.

    Attributes:
        included_namespaces: Namespaces of the backup to restore; empty for all in it.
        excluded_namespaces: Likewise, to leave out.
        included_resources: Kinds as ``deployments.apps``; empty for all in it.
        excluded_resources: Likewise, to leave out.
        include_cluster_resources: Objects without a namespace: all, none, or (None) those that belong to
            something restored.
        label_selector: Only objects with these labels.
        or_label_selectors: Only objects that one of these matches; not together with ``label_selector``.
        namespace_mapping: Other names for namespaces, from that in the backup to that in the cluster.
        restore_volumes: Restore volumes from their snapshots.
        status_included_resources: Kinds whose ``status`` is restored too.
        status_excluded_resources: Likewise, to leave out.
        preserve_node_ports: Keep the node ports of Services.
        existing_resource_policy: What becomes of an object that exists and differs: ``none`` leaves it (with a
            warning), ``update`` changes it.
        hooks: Commands and init containers for restored pods, as ``spec.hooks.resources`` has them.
        item_operation_timeout: How long to wait for the asynchronous work of plugins.
        resource_modifier: ConfigMap in Velero's namespace with patches to apply to objects.
        resource_policy: ConfigMap in Velero's namespace with filters.
        write_sparse_files: Restore files with holes as such.
        parallel_files_download: Files of one volume downloaded at a time.
        labels: Of the Restore object.
        annotations: Likewise.
        extra: Further fields of the spec, as they are.
    """

    _table: ClassVar[Mapping[str, _Field]] = _RESTORE_FIELDS

    included_namespaces: tuple[str, ...] = ()
    excluded_namespaces: tuple[str, ...] = ()
    included_resources: tuple[str, ...] = ()
    excluded_resources: tuple[str, ...] = ()
    include_cluster_resources: bool | None = None
    label_selector: LabelSelector | None = None
    or_label_selectors: tuple[LabelSelector, ...] = ()
    namespace_mapping: Mapping[str, str] | None = None
    restore_volumes: bool | None = None
    status_included_resources: tuple[str, ...] = ()
    status_excluded_resources: tuple[str, ...] = ()
    preserve_node_ports: bool | None = None
    existing_resource_policy: ExistingResourcePolicy | Literal[""] = ""
    hooks: tuple[Manifest, ...] = ()
    item_operation_timeout: timedelta | None = None
    resource_modifier: str = ""
    resource_policy: str = ""
    write_sparse_files: bool | None = None
    parallel_files_download: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

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
        yield from _duration_problems("item_operation_timeout", self.item_operation_timeout)
        yield from _count_problems("parallel_files_download", self.parallel_files_download)


_SCOPES = ("cluster", "namespace")


def _selector_problems(one: LabelSelector | None, several: Sequence[LabelSelector]) -> Iterator[str]:
    if one is not None and several:
        yield "label_selector and or_label_selectors exclude each other"


def _list_problems(what: str, included: Sequence[str], excluded: Sequence[str]) -> Iterator[str]:
    yield from _common_list_problems(what, included, excluded)
    if "*" in excluded:
        yield f"excluded {what}: * would leave nothing"


def _scoped_list_problems(what: str, included: Sequence[str], excluded: Sequence[str]) -> Iterator[str]:
    yield from _common_list_problems(what, included, excluded)
    if "*" in excluded and (included or len(set(excluded)) > 1):
        yield f"excluded {what}: * leaves no room for others, included or excluded"


def _common_list_problems(what: str, included: Sequence[str], excluded: Sequence[str]) -> Iterator[str]:
    if "*" in included and len(set(included)) > 1:
        yield f"included {what}: * has all of them, so the others say nothing"
    both = sorted(set(included) & set(excluded) - {"*"})
    if both:
        yield f"{what} both included and excluded: {', '.join(both)}"


def _duration_problems(name: str, value: timedelta | None) -> Iterator[str]:
    if value is not None and value <= timedelta():
        yield f"{name} is {value}, no time at all"


def _count_problems(name: str, value: int | None) -> Iterator[str]:
    if value is not None and value < 0:
        yield f"{name} is {value}, below zero"
