"""A snapshot, served: etcd and an API server on what a file holds, and nothing that would change it or call out."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

from clusterguard.clusters.embedded.cluster import EmbeddedCluster
from clusterguard.clusters.embedded.commands import MEMBER_NAME
from clusterguard.clusters.embedded.control_plane import MARGIN_BYTES
from clusterguard.clusters.embedded.isolation import isolating_flags
from clusterguard.errors import ClusterError, ProgramError, SnapshotError
from clusterguard.process import run
from clusterguard.toolchain.programs import named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from clusterguard.clusters.embedded.programs import Programs

__all__ = ["SERVING_PROGRAMS", "SnapshotServer"]

SERVING_PROGRAMS: Final = ("etcd", "etcdutl")
"""What it takes beside an API server."""

_RESTORE_SECONDS: Final = 1800.0
# Beyond the size of the file: the API server writes its own bootstrap objects, and etcd refuses writes over its quota.
_QUOTA_MARGIN: Final = 256 * 1024 * 1024
_LEAST_QUOTA: Final = 2 * 1024 * 1024 * 1024


# What must be through before every kind that it serves can be listed.
_SERVING: Final = (
    "/livez/ping",
    "/livez/autoregister-completion",
    "/livez/poststarthook/crd-informer-synced",
    "/livez/poststarthook/apiservice-discovery-controller",
)


class SnapshotServer(EmbeddedCluster):
    """A throwaway control plane that serves what an etcd snapshot holds.

    Only etcd and the API server run, so no controller changes anything; what the API server writes itself comes after
    the snapshot's revision. Nothing leaves the machine: all connections of the API server but the one to etcd go to a
    socket that nobody listens on. So webhooks, conversion webhooks and aggregated APIs of the snapshot are never
    called.

    Args:
        file: A database, with or without etcd's trailer; None for an empty cluster.
        skip_hash: Whether it has no trailer, and etcdutl must not look for one.
        encryption_config: The ``EncryptionConfiguration`` that the snapshot's cluster had, if any.
        etcd_prefix: Of all keys.
        api_server: As the toolchain calls it: another minor version is named like ``kube-apiserver@1.34``.
        on_phase: Called with the name of each phase as it begins.
        **options: As `EmbeddedCluster` takes them.

    Raises:
        SnapshotError: etcdutl cannot restore the file.
        ClusterError: etcd or the API server does not come up on it, or there is no room for it (``no-room``).
    """

    simulated_pods = False
    _components = ()

    def __init__(
        self,
        file: Path | None,
        *,
        skip_hash: bool = False,
        encryption_config: Path | None = None,
        etcd_prefix: str = "/registry",
        api_server: str = "kube-apiserver",
        on_phase: Callable[[str], object] = lambda _: None,
        **options: Any,  # noqa: ANN401 - as the base class types them
    ) -> None:
        super().__init__(**options)
        self._file = file
        self._skip_hash = skip_hash
        self._encryption_config = encryption_config
        self._etcd_prefix = etcd_prefix
        self._minor = named(api_server).accepts.at_least
        self._program_names = (*SERVING_PROGRAMS, api_server)
        self._on_phase = on_phase

    def _flags(self) -> Mapping[str, tuple[str, ...]]:
        size = self._file.stat().st_size if self._file else 0
        quota = max(_LEAST_QUOTA, 2 * size + _QUOTA_MARGIN)
        encryption = (
            (f"--encryption-provider-config={self._encryption_config.absolute()}",) if self._encryption_config else ()
        )
        return {
            "etcd": (f"--quota-backend-bytes={quota}",),
            "kube-apiserver": (
                f"--etcd-prefix={self._etcd_prefix}",
                *isolating_flags(self.folder, minor=self._minor),
                # Compaction would forget the revision that is looked at.
                "--etcd-compaction-interval=0",
                *encryption,
            ),
        }

    def _bring_up(self, programs: Programs) -> None:
        if self._file is not None:
            self._on_phase("restore")
            self._restore(programs, self._file)
        self._on_phase("start etcd")
        programs.start("etcd", "kube-apiserver")
        self.control_plane.start_etcd()
        self._on_phase("start the API server")
        # Not "ready": one value that cannot be read keeps it from that for ever, and the others are served.
        self.control_plane.wait_for_checks(*_SERVING)

    def _restore(self, programs: Programs, file: Path) -> None:
        data = programs.layout.data
        shutil.rmtree(data, ignore_errors=True)
        needed, free = file.stat().st_size + MARGIN_BYTES, shutil.disk_usage(self.folder).free
        if free < needed:
            raise ClusterError(
                f"the restored database needs {needed:,} bytes in {self.folder}, and {free:,} are free",
                code="no-room",
                fields={"needed": needed, "free": free},
                hint="make room there, or point XDG_STATE_HOME to another disk",
            )
        peer = f"https://127.0.0.1:{programs.record.ports.etcd_peer}"
        argv = [programs.record.programs["etcdutl"], "snapshot", "restore", str(file), f"--data-dir={data}"]
        argv += [f"--name={MEMBER_NAME}", f"--initial-cluster={MEMBER_NAME}={peer}"]
        argv += [f"--initial-advertise-peer-urls={peer}", *(["--skip-hash-check"] if self._skip_hash else [])]
        try:
            run(argv, timeout_seconds=_RESTORE_SECONDS, dies_with_us=True)
        except ProgramError as error:
            raise SnapshotError(
                f"etcdutl does not restore it: {error.message}", code="restore-refused", hint=error.hint
            ) from error
