"""The options of the commands about Velero.

Flags that describe something to make (a backup, a location, an installation) are fields of a dataclass, each called
as the field of what it sets, so that `Flags.given` is all that has to be passed on.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clusterguard.cli.options import ClusterOption, KubeconfigOption, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.velero.client import VeleroClient

__all__ = [
    "BackupFlags",
    "DownloadFlags",
    "Flags",
    "JsonOption",
    "NameArgument",
    "NewNameArgument",
    "RestoreFlags",
    "ServerFlags",
    "TimeoutOption",
    "TolerateOption",
    "WaitOption",
    "Words",
    "YesOption",
    "file_contents",
    "key_value",
]


# ---- what single words mean ------------------------------------------------------------------------------


def key_value(word: str, sign: str = "=") -> Any:  # noqa: ANN401 - typer would take a narrower type for the option's
    """Read ``KEY=VALUE``."""
    key, found, value = word.partition(sign)
    if not found or not key:
        raise typer.BadParameter(f"{word!r}: write NAME{sign}VALUE")
    return key, value


def _old_new(word: str) -> Any:  # noqa: ANN401 - likewise
    return key_value(word, ":")


def _ordered(word: str) -> Any:  # noqa: ANN401 - likewise
    kind, names = key_value(word)
    return kind, tuple(names.split(","))


def _duration(text: str) -> Any:  # noqa: ANN401 - likewise
    from clusterguard.velero.durations import parse_go_duration

    try:
        return parse_go_duration(text) if text else None
    except ValueError as error:
        raise typer.BadParameter(f"{error}; write it like 90s, 15m or 72h") from error


def _selector(text: str) -> Any:  # noqa: ANN401 - likewise
    from clusterguard.velero.selectors import LabelSelector

    return LabelSelector.parse(text) if text else None


def _rule(text: str) -> Any:  # noqa: ANN401 - likewise
    from clusterguard.velero.findings import Rule

    try:
        return Rule(text)
    except ValueError as error:
        raise typer.BadParameter(f"no finding is called {text!r}; there are {', '.join(sorted(Rule))}") from error


def file_contents(path: str) -> Any:  # noqa: ANN401 - likewise
    """Read the text of a file."""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path}: {error}") from error


# ---- options of many commands ----------------------------------------------------------------------------

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended, and judge it.")]
TimeoutOption = Annotated[
    Any, typer.Option("--timeout", parser=_duration, metavar="TIME", help="How long to wait, such as 90s or 1h30m.")
]
Words = list[str] | None
TolerateOption = Annotated[
    Words, typer.Option("--tolerate", parser=_rule, metavar="FINDING", help="A finding that does not count, by name.")
]
NameArgument = Annotated[str, typer.Argument(help="Its name.")]
NewNameArgument = Annotated[str, typer.Argument(help="What to call it.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFlags:
    """How the object store is trusted that the files of a backup or restore are fetched from."""

    ca: Annotated[Path | None, typer.Option("--cacert", help="The CA of the object store, as PEM.")] = None
    insecure: Annotated[
        bool, typer.Option("--insecure-skip-tls-verify", help="Trust any certificate of the object store.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFlags:
    """Which Velero is meant: that of a cluster, in a namespace."""

    cluster: ClusterOption
    kubeconfig: KubeconfigOption = None
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="The namespace that Velero works in.", envvar="VELERO_NAMESPACE")
    ] = "velero"

    @contextmanager
    def client(self, download: DownloadFlags | None = None) -> Iterator[VeleroClient]:
        """Give a client of it, for as long as the ``with`` block runs."""
        from clusterguard.terminal import progress_sink
        from clusterguard.velero import VeleroClient

        trust = download or DownloadFlags()
        with (
            progress_sink() as progress,
            opened(self.cluster, kubeconfig=self.kubeconfig, progress=progress) as target,
        ):
            yield VeleroClient(
                api=target.api, namespace=self.namespace, ca=trust.ca, insecure=trust.insecure, progress=progress
            )


# ---- what to back up or to restore -----------------------------------------------------------------------


class Flags:
    """Flags called as the fields of what they set."""

    __slots__ = ()

    def given(self) -> dict[str, Any]:
        """Return what was set, by field."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type] # a dataclass
        return {name: _collected(value) for name, value in values.items() if value not in (None, [], "")}


def _collected(value: object) -> object:
    """Return the values of a repeated flag as a tuple, or as a dictionary where they are pairs."""
    if not isinstance(value, list):
        return value
    return dict(value) if isinstance(value[0], tuple) else tuple(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SelectionFlags(Flags):
    """What backups and restores have in common."""

    included_namespaces: Annotated[Words, typer.Option("--include-namespaces", help="Only this namespace.")] = None
    excluded_namespaces: Annotated[Words, typer.Option("--exclude-namespaces", help="Not this namespace.")] = None
    included_resources: Annotated[
        Words, typer.Option("--include-resources", help="Only this kind: deployments.apps.")
    ] = None
    excluded_resources: Annotated[Words, typer.Option("--exclude-resources", help="Not this kind.")] = None
    include_cluster_resources: Annotated[
        bool | None,
        typer.Option("--include-cluster-resources/--exclude-cluster-resources", help="Objects without a namespace."),
    ] = None
    label_selector: Annotated[
        Any,
        typer.Option("--selector", "-l", parser=_selector, metavar="LABELS", help="Only objects with these labels."),
    ] = None
    or_label_selectors: Annotated[
        Words,
        typer.Option(
            "--or-selector",
            parser=_selector,
            metavar="LABELS",
            help="Only objects that one of these selectors matches.",
        ),
    ] = None
    item_operation_timeout: Annotated[
        Any, typer.Option(parser=_duration, metavar="TIME", help="For the work of plugins.")
    ] = None
    resource_policy: Annotated[
        str, typer.Option("--resource-policies-configmap", help="ConfigMap with rules for volumes, or filters.")
    ] = ""
    labels: Annotated[
        Words, typer.Option("--label", parser=key_value, metavar="KEY=VALUE", help="Label to put on it.")
    ] = None
    annotations: Annotated[
        Words, typer.Option("--annotation", parser=key_value, metavar="KEY=VALUE", help="Annotation to put on it.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFlags(_SelectionFlags):
    """The fields of `BackupOptions`."""

    included_cluster_scoped_resources: Annotated[Words, typer.Option("--include-cluster-scoped-resources")] = None
    excluded_cluster_scoped_resources: Annotated[Words, typer.Option("--exclude-cluster-scoped-resources")] = None
    included_namespace_scoped_resources: Annotated[Words, typer.Option("--include-namespace-scoped-resources")] = None
    excluded_namespace_scoped_resources: Annotated[Words, typer.Option("--exclude-namespace-scoped-resources")] = None
    ttl: Annotated[
        Any, typer.Option(parser=_duration, metavar="TIME", help="How long Velero keeps it, such as 72h.")
    ] = None
    storage_location: Annotated[str, typer.Option(help="Its location; by default the default one.")] = ""
    volume_snapshot_locations: Annotated[Words, typer.Option(help="Where snapshots go.")] = None
    snapshot_volumes: Annotated[bool | None, typer.Option("--snapshot-volumes/--no-snapshot-volumes")] = None
    snapshot_move_data: Annotated[bool | None, typer.Option("--snapshot-move-data/--no-snapshot-move-data")] = None
    data_mover: Annotated[str, typer.Option(help="Who moves the data of snapshots.")] = ""
    default_volumes_to_fs_backup: Annotated[
        bool | None, typer.Option("--default-volumes-to-fs-backup/--no-default-volumes-to-fs-backup")
    ] = None
    ordered_resources: Annotated[
        Words,
        typer.Option(parser=_ordered, metavar="KIND=NAMESPACE/NAME,…", help="Objects to back up first, in this order."),
    ] = None
    csi_snapshot_timeout: Annotated[Any, typer.Option(parser=_duration, metavar="TIME", help="For a CSI snapshot.")] = (
        None
    )
    parallel_files_upload: Annotated[int | None, typer.Option(help="Files of one volume at a time.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreFlags(_SelectionFlags):
    """The fields of `RestoreOptions`."""

    namespace_mapping: Annotated[
        Words,
        typer.Option("--namespace-mappings", parser=_old_new, metavar="OLD:NEW", help="New name of a namespace."),
    ] = None
    existing_resource_policy: Annotated[
        Literal["", "none", "update"], typer.Option(help="What becomes of objects that exist and differ.")
    ] = ""
    restore_volumes: Annotated[bool | None, typer.Option("--restore-volumes/--no-restore-volumes")] = None
    preserve_node_ports: Annotated[bool | None, typer.Option("--preserve-nodeports/--no-preserve-nodeports")] = None
    status_included_resources: Annotated[
        Words, typer.Option("--status-include-resources", help="Kinds whose status is restored, too.")
    ] = None
    status_excluded_resources: Annotated[
        Words, typer.Option("--status-exclude-resources", help="Kinds whose status is not.")
    ] = None
    resource_modifier: Annotated[
        str, typer.Option("--resource-modifier-configmap", help="ConfigMap with patches to apply.")
    ] = ""
    write_sparse_files: Annotated[bool | None, typer.Option("--write-sparse-files/--no-write-sparse-files")] = None
    parallel_files_download: Annotated[int | None, typer.Option(help="Files of one volume at a time.")] = None
