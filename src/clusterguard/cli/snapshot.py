"""``clusterguard snapshot``: look into etcd snapshots; nothing is started, no cluster is needed."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clusterguard.cli.options import ClusterOption, KubeconfigOption, Opening, opened, with_options
from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clusterguard.model.inventory import Scope
    from clusterguard.model.report import ValidationReport
    from clusterguard.snapshots.reader import SnapshotContents, SnapshotKey, SnapshotObject, SnapshotReader

__all__ = ["app"]

_COULD_NOT_TELL = 2
_SHOWN_PATHS = 4

app = typer.Typer(
    name="snapshot", help="Look into etcd snapshots, without any cluster or program.", no_args_is_help=True
)

_Location = Annotated[
    str,
    typer.Argument(
        help="The snapshot, of any program: a file, a folder or location whose newest is taken, a URL, or -.",
        metavar="FILE|URL",
    ),
]
_Kind = Annotated[str, typer.Argument(help="Kind as kubectl takes it: po, Deployment, widgets.example.com.")]
_Name = Annotated[str, typer.Argument(help="The object's name.")]
_Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Its namespace, by default `default`.")]
_OneNamespace = Annotated[str, typer.Option("--namespace", "-n", help="Only this namespace.")]
_Selector = Annotated[str, typer.Option("--selector", "-l", help="Only objects with these labels: app=web,tier!=db.")]
_Secrets = Annotated[bool, typer.Option("--show-secrets", help="Show what Secrets hold.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """The options of how a snapshot is read."""

    prefix: Annotated[
        str, typer.Option("--prefix", help="The API server's --etcd-prefix; OpenShift has /kubernetes.io.")
    ] = "/registry"
    encryption_config: Annotated[
        Path | None,
        typer.Option(
            "--encryption-config", help="The EncryptionConfiguration whose keys decrypt values.", metavar="FILE"
        ),
    ] = None
    kubernetes: Annotated[
        str,
        typer.Option(
            "--kubernetes",
            help="Write empty fields as this version's API server does, such as 1.33.",
            metavar="VERSION",
        ),
    ] = ""

    @contextmanager
    def opened(self, location: str, opening: Opening) -> Iterator[SnapshotReader]:
        """Open a snapshot; what was met and is not known is told at the end."""
        from clusterguard.snapshots.encryption import EncryptionKeys
        from clusterguard.snapshots.reader import SnapshotReader

        keys = EncryptionKeys.load(self.encryption_config) if self.encryption_config else None
        with (
            opening.opened(location) as file,
            SnapshotReader(path=file.path, prefix=self.prefix, encryption=keys, kubernetes=self.kubernetes) as reader,
        ):
            yield reader
            if reader.unknown_fields:
                _tell_unknown(reader.unknown_fields)


@app.command("ls")
@with_options
def list_objects(
    location: _Location,
    kind: Annotated[str, typer.Argument(help="Kind as kubectl takes it; by default all kinds, counted.")] = "",
    namespace: _OneNamespace = "",
    selector: _Selector = "",
    output: Annotated[
        Literal["table", "name", "json"], typer.Option("--output", "-o", help="How to print it.")
    ] = "table",
    *,
    reading: _Reading,
    opening: Opening,
) -> None:
    """List kinds with their counts, or the objects of one kind. Exit code 2: an object could not be read."""
    with reading.opened(location, opening) as reader:
        if not kind and not namespace and not selector:
            _show_contents(reader.contents(), reading.prefix, output)
            return
        unreadable: list[SnapshotObject] = []
        if selector:
            found = list(reader.objects(kind, namespace=namespace, selector=selector))
            unreadable = [each for each in found if each.error]
            keys = [each.key for each in found if not each.error]
        else:
            keys = reader.keys(kind, namespace=namespace)
        _show_keys(keys, output)
        _end_with(unreadable)


@app.command()
@with_options
def get(
    location: _Location,
    kind: _Kind,
    name: Annotated[str, typer.Argument(help="The object's name; by default all of the kind.")] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="The namespace: of one object `default`, else all by default.")
    ] = "",
    selector: _Selector = "",
    output: Annotated[
        Literal["yaml", "json", "name"], typer.Option("--output", "-o", help="How to print it.")
    ] = "yaml",
    revision: Annotated[int | None, typer.Option(help="As it was at this revision.", min=1)] = None,
    show_secrets: _Secrets = False,
    show_managed_fields: Annotated[
        bool, typer.Option("--show-managed-fields", help="Show who set which field, which kubectl hides, too.")
    ] = False,
    *,
    reading: _Reading,
    opening: Opening,
) -> None:
    """Print objects as the API server would serve them. Exit code 2: one could not be read, or is not there."""
    kind, name = _split(kind, name)
    show = _Show(secrets=show_secrets, managed_fields=show_managed_fields)
    if name and selector:
        raise ConfigError("a name and --selector exclude each other")
    with reading.opened(location, opening) as reader:
        if name:
            where = _namespace_of(reader, kind, namespace)
            item = reader.get(kind, name, namespace=where, revision=revision)
            _print(show.of(item), output)
            return
        if revision is not None:
            raise ConfigError("--revision is for one object", hint="name it")
        found = list(reader.objects(kind, namespace=namespace, selector=selector))
        items = [each.data for each in found if each.data is not None]
        if output == "name":
            for each in items:
                _print(each, output)
        else:
            listed = [show.of(each) for each in items]
            _print({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": listed}, output)
        _end_with([each for each in found if each.error])


@app.command()
@with_options
def history(
    location: _Location,
    kind: _Kind,
    name: Annotated[str, typer.Argument(help="The object's name.")] = "",
    namespace: _Namespace = "",
    output: Annotated[Literal["table", "json"], typer.Option("--output", "-o", help="How to print it.")] = "table",
    *,
    reading: _Reading,
    opening: Opening,
) -> None:
    """List the changes of one object that the file still holds, and which fields each one changed."""
    kind, name = _split(kind, name)
    if not name:
        raise ConfigError("which object?", hint="name it: clusterguard snapshot history FILE KIND NAME")
    with reading.opened(location, opening) as reader:
        changes = reader.history(kind, name, namespace=_namespace_of(reader, kind, namespace))
        if not changes:
            reader.get(kind, name, namespace=_namespace_of(reader, kind, namespace))  # says that it is not there
        _show_history(list(_told(reader, changes)), output)


@app.command()
@with_options
def search(
    location: _Location,
    text: Annotated[str, typer.Argument(help="What to look for, exactly as it is written.")],
    kind: Annotated[str, typer.Option(help="Only this kind.")] = "",
    namespace: _OneNamespace = "",
    *,
    reading: _Reading,
    opening: Opening,
) -> None:
    """List objects and fields that have a text, also inside Secrets. Exit code 1: none; 2: not all could be read."""
    from clusterguard.snapshots.findings import paths_with
    from clusterguard.terminal.console import out

    unreadable = []
    hits = 0
    with reading.opened(location, opening) as reader:
        for found in reader.search(text, kind=kind, namespace=namespace):
            if found.data is None:
                unreadable.append(found)
                continue
            for path in paths_with(found.data, text):
                out.print(f"{found.key}  {path}", markup=False, soft_wrap=True)
                hits += 1
    _end_with(unreadable)
    if not hits:
        raise typer.Exit(1)


@app.command()
@with_options
def diff(
    location: _Location,
    other: Annotated[
        str, typer.Argument(help="The newer snapshot; or leave it out, and name a cluster.", metavar="FILE|URL")
    ] = "",
    cluster: ClusterOption = "",
    kubeconfig: KubeconfigOption = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind, such as Deployment; may be repeated.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Only this namespace, or glob; may be repeated.")
    ] = None,
    profile: Annotated[
        Literal["etcd-restore", "velero-restore", "same-cluster"],
        typer.Option(help="What may differ, by how the objects came there."),
    ] = "etcd-restore",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    reading: _Reading,
    opening: Opening,
) -> None:
    """Show what differs between two snapshots, or a snapshot and a cluster. Exit code 1: something does."""
    from clusterguard.model.inventory import Scope
    from clusterguard.snapshots.difference import compare_snapshots

    if bool(other) == bool(cluster):
        raise ConfigError("compare with what?", hint="name another snapshot, or a cluster: --cluster context:NAME")
    with reading.opened(location, opening) as reader:
        scope = Scope(kinds=tuple(_full_kind(reader, each) for each in kind or ()), namespaces=tuple(namespace or ()))
        if other:
            with reading.opened(other, opening) as newer:
                report = compare_snapshots(reader, newer, scope, profile=profile)
        else:
            report = _compared_with(reader, cluster, kubeconfig, scope, profile)
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())
    if not report.ok:
        raise typer.Exit(1)


def _full_kind(reader: SnapshotReader, text: str) -> str:
    """Return a kind as scopes write it, however kubectl takes it: ``Deployment.apps`` of ``deploy``."""
    from clusterguard.snapshots.inventory import kinds_in

    resource = reader.resource_named(text)
    kind = kinds_in(reader).get(resource, resource.partition(".")[0])
    group = resource.partition(".")[2]
    return f"{kind}.{group}" if group else kind


def _compared_with(
    reader: SnapshotReader, cluster: str, kubeconfig: Path | None, scope: Scope, profile: str
) -> ValidationReport:
    from clusterguard.snapshots.inventory import snapshot_inventory
    from clusterguard.terminal import progress_sink
    from clusterguard.validate import RestoreValidator
    from clusterguard.validate.validator import Tolerance

    inventory = snapshot_inventory(reader, scope, taken=datetime.now(UTC))
    with progress_sink() as progress, opened(cluster, kubeconfig=kubeconfig, progress=progress) as target:
        return RestoreValidator(api=target.api).validate(
            inventory, profile=profile, tolerate=Tolerance(extra=0), progress=progress
        )


@app.command()
@with_options
def export(
    location: _Location,
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="DIR")],
    kind: Annotated[str, typer.Argument(help="Kind as kubectl takes it; by default all.")] = "",
    name: Annotated[str, typer.Argument(help="The object's name; by default all of the kind.")] = "",
    namespace: _OneNamespace = "",
    selector: _Selector = "",
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Write Secrets, too.")] = False,
    with_owned: Annotated[
        bool, typer.Option("--with-owned", help="Write what a controller made of another object, too.")
    ] = False,
    *,
    reading: _Reading,
    opening: Opening,
) -> None:
    """Write objects as manifests, ready for `kubectl apply -f DIR`. Exit code 2: an object could not be read."""
    from clusterguard.snapshots.export import export_objects
    from clusterguard.terminal.console import err, out

    kind, name = _split(kind, name)
    with reading.opened(location, opening) as reader:
        found = list(_chosen(reader, kind, name, namespace, selector))
        done = export_objects(found, folder, secrets=show_secrets, owned=with_owned, named=bool(name))
    for reason, count in sorted(done.left_out.items()):
        err.print(f"not written: {count:,} ({reason})", style="yellow", markup=False, soft_wrap=True)
    out.print(f"{len(done.files):,} manifests in {folder}: kubectl apply -f {folder}", markup=False, soft_wrap=True)
    _end_with(done.unreadable)


def _chosen(reader: SnapshotReader, kind: str, name: str, namespace: str, selector: str) -> Iterator[SnapshotObject]:
    """Yield the objects that the options of an export mean; with a namespace's go the namespace itself."""
    where = _namespace_of(reader, kind, namespace) if name else namespace
    found = False
    for each in reader.objects(kind, namespace=where, selector=selector):
        if not name or each.key.name == name:
            found = True
            yield each
    if name and not found:
        reader.get(kind, name, namespace=where)  # says that it is not there
    if namespace and not kind:
        yield from (each for each in reader.objects("namespaces") if each.key.name == namespace)


def _tell_unknown(fields: Mapping[str, int]) -> None:
    from clusterguard.terminal.console import err

    for name, count in sorted(fields.items()):
        err.print(f"not shown: unknown field {name}, {count} time(s)", style="yellow", markup=False)


def _split(kind: str, name: str) -> tuple[str, str]:
    """Return kind and name; kubectl's ``pods/web`` is both."""
    before, slash, after = kind.partition("/")
    if slash and name:
        raise ConfigError(f"{kind} names an object already", hint=f"write {before} {name}, or {kind} alone")
    return (before, after) if slash else (kind, name)


def _namespace_of(reader: SnapshotReader, kind: str, namespace: str) -> str:
    return namespace or ("default" if reader.is_namespaced(kind) else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Show:
    """What of an object is shown."""

    secrets: bool
    managed_fields: bool

    def of(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        from clusterguard.snapshots.masking import masked

        shown = item if self.secrets else masked(item)
        if self.managed_fields or "managedFields" not in shown["metadata"]:
            return shown
        metadata = {key: value for key, value in shown["metadata"].items() if key != "managedFields"}
        return {**shown, "metadata": metadata}


def _print(item: Mapping[str, Any], output: str) -> None:
    import orjson

    if output == "name":
        group = item["apiVersion"].rpartition("/")[0]
        kind = f"{item['kind'].lower()}.{group}" if group else item["kind"].lower()
        typer.echo(f"{kind}/{item['metadata']['name']}")
        return
    # As kubectl has them: in the order of their names.
    text = orjson.dumps(item, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
    if output == "json":
        typer.echo(text.decode())
        return
    from clusterguard.documents.writing import yaml_text  # slow to load

    typer.echo(yaml_text([orjson.loads(text)]), nl=False)


def _show_contents(contents: SnapshotContents, prefix: str, output: str) -> None:
    from clusterguard.documents.json_output import json_data
    from clusterguard.terminal.console import out

    if output == "json":
        _echo_json(json_data(contents))
        return
    if output == "name":
        for each in contents.kinds:
            typer.echo(each.resource)
        return
    _show_table(
        ("kind", "objects", "namespaces", "bytes"),
        [(each.resource, f"{each.objects:,}", str(each.namespaces or ""), f"{each.size:,}") for each in contents.kinds],
    )
    total = sum(each.objects for each in contents.kinds)
    notes = [f"{total:,} objects at revision {contents.revision:,}"]
    if contents.bookkeeping:
        notes.append(f"{contents.bookkeeping:,} keys are the API servers' own")
    notes += [f"{count:,} keys belong to nothing known: {place}" for place, count in contents.unknown.items()]
    notes += [f"{count:,} keys are elsewhere: {begin}" for begin, count in contents.elsewhere.items()]
    out.print("; ".join(notes), style="dim", markup=False, soft_wrap=True)
    if not total:
        raise ConfigError(f"no object lies under {prefix}", hint="say where they lie: --prefix")


def _show_keys(keys: list[SnapshotKey], output: str) -> None:
    if output == "json":
        fields = ("resource", "namespace", "name", "revision", "size")
        _echo_json([{field: getattr(key, field) for field in fields} for key in keys])
    elif output == "name":
        for key in keys:
            typer.echo(f"{key.resource}/{key.name}")
    else:
        several = len({key.resource for key in keys}) > 1
        first = ("kind", "namespace", "name") if several else ("namespace", "name")
        rows = [
            (*([key.resource] if several else []), key.namespace, key.name, str(key.revision), f"{key.size:,}")
            for key in keys
        ]
        _show_table((*first, "revision", "bytes"), rows)


def _told(reader: SnapshotReader, changes: Iterable[SnapshotKey]) -> Iterator[dict[str, Any]]:
    """Yield each change with what it did."""
    from clusterguard.errors import StoredObjectError
    from clusterguard.snapshots.findings import changed_paths

    before: Mapping[str, Any] | None = None
    for each in changes:
        told: dict[str, Any] = {"revision": each.revision, "bytes": each.size}
        if each.is_deletion:
            before = None
            yield told | {"change": "deleted", "fields": []}
            continue
        try:
            item = reader.read(each)
        except StoredObjectError as error:
            before = None
            yield told | {"change": f"cannot be read ({error.code})", "fields": []}
            continue
        fields = sorted(changed_paths(before, item)) if before is not None else []
        # The first one that is left need not be the first one that was: a compaction removes older ones.
        yield told | {"change": "changed" if before is not None else "put", "fields": fields}
        before = item


def _show_history(told: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        _echo_json(told)
        return
    rows = []
    for each in told:
        more = len(each["fields"]) - _SHOWN_PATHS
        fields = ", ".join(each["fields"][:_SHOWN_PATHS]) + (f" and {more} more" if more > 0 else "")
        rows.append((str(each["revision"]), each["change"], f"{each['bytes']:,}", fields))
    _show_table(("revision", "change", "bytes", "fields"), rows)


def _show_table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.table import Table

    from clusterguard.terminal.console import out

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        number = title in {"objects", "namespaces", "bytes", "revision"}
        table.add_column(title, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table, markup=False)


def _echo_json(document: object) -> None:
    import json

    typer.echo(json.dumps(document, indent=2))


def _end_with(unreadable: list[SnapshotObject]) -> None:
    """Say what could not be read, by reason, and end so that nobody takes the rest for all."""
    from clusterguard.terminal.console import err

    if not unreadable:
        return
    for each in unreadable:
        err.print(f"cannot be read: {each.error}", style="yellow", markup=False, soft_wrap=True)
    hints = dict.fromkeys(each.error.hint for each in unreadable if each.error and each.error.hint)
    for hint in hints:
        err.print(f"  → {hint}", style="yellow", markup=False, soft_wrap=True)
    raise typer.Exit(_COULD_NOT_TELL)
