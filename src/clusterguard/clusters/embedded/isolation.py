"""An API server that calls nobody: for whatever may lie in a backup, restored on a machine that is not its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from clusterguard.clusters.embedded.cluster import PROGRAMS, EmbeddedCluster
from clusterguard.toolchain.programs import named

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["IsolatedCluster", "isolating_flags"]

# Webhooks and what else of the backup would judge the objects that come after it, and since when there is such a
# plugin. They could not be asked here.
_ADMISSION: Final = {
    "MutatingAdmissionWebhook": (1, 9),
    "ValidatingAdmissionWebhook": (1, 9),
    "MutatingAdmissionPolicy": (1, 32),
    "ValidatingAdmissionPolicy": (1, 26),
}


def isolating_flags(folder: Path, *, minor: tuple[int, ...]) -> tuple[str, ...]:
    """Return flags with which an API server connects to nothing but etcd.

    Webhooks, conversion webhooks and aggregated APIs go through the egress selector (KEP 1281), which leads to a socket
    that does not exist.

    Args:
        folder: The cluster's own; the configuration is written into it.
        minor: The minor version of the API server, such as ``(1, 34)``: it refuses names of plugins that it lacks.
    """
    nowhere = {"uds": {"udsName": str(folder / "nowhere.sock")}}
    selections = [
        {"name": name, "connection": {"proxyProtocol": "HTTPConnect", "transport": nowhere}}
        for name in ("cluster", "controlplane")
    ]
    path = folder / "egress.json"
    kind = {"apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration"}
    path.write_text(json.dumps({**kind, "egressSelections": selections}))
    plugins = ",".join(name for name, since in _ADMISSION.items() if since <= minor)
    return (f"--egress-selector-config-file={path}", f"--disable-admission-plugins={plugins}")


class IsolatedCluster(EmbeddedCluster):
    """An embedded cluster whose API server calls nobody.

    Args:
        api_server: As the toolchain calls it: another minor version is named like ``kube-apiserver@1.37``. The
            controllers are of the toolchain's own version.
        **options: As `EmbeddedCluster` takes them.
    """

    def __init__(
        self,
        *,
        api_server: str = "kube-apiserver",
        **options: Any,  # noqa: ANN401 - as the base class types them
    ) -> None:
        super().__init__(**options)
        self._minor = named(api_server).accepts.at_least
        self._program_names = tuple(api_server if name == "kube-apiserver" else name for name in PROGRAMS)

    def _flags(self) -> Mapping[str, tuple[str, ...]]:
        return {"kube-apiserver": isolating_flags(self.folder, minor=self._minor)}
