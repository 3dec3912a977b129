"""What ``clusterguard drill init`` does before the new drill runs: look, write, and tell what to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from clusterguard.cli.options import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.drills.authoring.document import Engine
    from clusterguard.drills.authoring.looking import Seen
    from clusterguard.drills.authoring.stand_in import StandIn
    from clusterguard.errors import ConfigError

__all__ = ["write_first_drill"]

_MOST_TOLD: Final = 10


def write_first_drill(
    cluster: str,
    namespace: str,
    folder: Path | None,
    *,
    kubeconfig: Path | None,
    backup: Literal["auto", "etcd", "velero"],
    force: bool,
) -> Path:
    """Look at a namespace, write a drill with a stand-in for it, say what to read, and return the drill's path."""
    from clusterguard.drills.authoring.document import on_one_line
    from clusterguard.drills.authoring.folder import drill_files_of, require_free, write_files
    from clusterguard.drills.authoring.looking import look_at_namespace, shows_etcd
    from clusterguard.terminal import err, out, progress_sink

    where = folder or Path("drills", namespace)
    try:
        require_free(where, force=force)
    except OSError as error:
        raise _unwritable(where, error) from error
    with progress_sink() as progress, opened(cluster, kubeconfig=kubeconfig, progress=progress) as target:
        seen = look_at_namespace(target.api, namespace, progress=progress)
        hidden = backup == "auto" and seen.velero and not target.simulated_pods and not shows_etcd(target.api)
    engine: Engine = "velero" if backup == "velero" or hidden else "etcd"
    files, stand_in = drill_files_of(seen, engine=engine, origin=_called(cluster))
    try:
        paths = write_files(where, files)
    except OSError as error:
        raise _unwritable(where, error) from error
    for path in paths:
        out.print(str(path), markup=False, soft_wrap=True)
    if hidden:
        out.print("It backs up by Velero: the cluster has one, and shows no etcd.", markup=False, soft_wrap=True)
    for line in _to_read(seen, stand_in):
        err.print(on_one_line(line), style="yellow", markup=False, soft_wrap=True)
    return paths[-1]


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    from clusterguard.errors import ConfigError

    return ConfigError(
        f"the drill cannot be written to {folder}: {error.strerror or error}",
        code="drill-not-written",
        fields={"folder": str(folder)},
        hint="name a folder that you may write to, on a disk with room",
    )


def _called(cluster: str) -> str:
    """Return what files call a cluster: where somebody keeps a kubeconfig is of no use to others."""
    provider, _, name = cluster.partition(":")
    return f"{provider}:{Path(name).name}" if provider == "kubeconfig" else cluster


def _to_read(seen: Seen, stand_in: StandIn) -> Iterator[str]:
    """Yield what whoever owns the drill now should look at before it is committed."""
    secrets = len(stand_in.of_kind("Secret"))
    if secrets:
        yield f"made up: every value of {secrets:,} Secret{'s' * (secrets != 1)}"
    made_up = [f"{ref}: {', '.join(places)}" for ref, places in stand_in.made_up.items()]
    yield from (f"made up: {line}" for line in made_up[:_MOST_TOLD])
    if (more := len(made_up) - _MOST_TOLD) > 0:
        yield f"made up: values in {more:,} more objects; the manifests say which"
    for kind, reason in seen.unread.items():
        yield f"could not be read: {kind}: {reason}"
    for (kind, reason), count in stand_in.left_out.items():
        if kind in seen.undefined:
            yield f"not in the drill: {count:,} {kind}: {reason}"
    yield "read the manifests before you commit them: a credential under an innocent name is not found"
