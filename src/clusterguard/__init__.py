"""Prove that Kubernetes backups restore.

Three classes carry the library: `EtcdSnapshotter` saves, verifies and restores etcd snapshots, `VeleroClient`
speaks to a Velero server, and `RestoreValidator` shows from evidence whether a restored cluster is what it was.
`open_cluster` gives the clusters they work on. Importing this package loads none of the SDKs underneath: a name
is imported from its module when it is first used.
"""

from typing import Any

from clusterguard.lazy_names import lazy_names

_attribute, _names = lazy_names(__name__, __file__)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    if name == "__version__":
        from importlib import metadata  # slow to load, and rarely asked for

        return metadata.version("clusterguard")
    return _attribute(name)


def __dir__() -> list[str]:
    return sorted([*_names(), "__version__"])
