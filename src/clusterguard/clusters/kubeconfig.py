"""kubeconfig files: found, and merged as kubectl merges them.

The official client merges, too, but lets the last file's current context win, where kubectl takes the first one's, and
looks for a user's certificate beside the file that has the cluster. Source: client-go, tools/clientcmd/loader.go.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TokenFile", "default_kubeconfig", "read_kubeconfig"]

# Lists of entries with a name, what an entry holds, and which of its keys are paths relative to the file.
_ENTRIES: Final = {
    "clusters": ("cluster", ("certificate-authority",)),
    "contexts": ("context", ()),
    "users": ("user", ("client-certificate", "client-key", "tokenFile")),
}


def default_kubeconfig(environ: Mapping[str, str] = os.environ) -> Path:
    """Return what kubectl would read: the files that ``KUBECONFIG`` lists, with colons, or ``~/.kube/config``."""
    return Path(environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")


def read_kubeconfig(path: Path | str) -> dict[str, Any]:
    """Read a kubeconfig, or several with colons between them, and merge them.

    Of entries with one name the first file's counts, and so does the first current context. Files that are missing or
    empty are passed over. Paths come out absolute.

    Args:
        path: As ``KUBECONFIG`` has it.

    Raises:
        ConfigError: None of the files is there, or one is not a kubeconfig.
    """
    files = [Path(name).expanduser() for name in str(path).split(os.pathsep) if name]
    documents = [(file.absolute().parent, _document(file)) for file in files if file.exists()]
    if not documents:
        raise ConfigError(f"kubeconfig {path}: there is no such file", hint="name one, or set KUBECONFIG")
    if not any(document for _, document in documents):
        raise ConfigError(f"kubeconfig {path}: it is empty", hint="name another one, or set KUBECONFIG")
    contexts = (str(document.get("current-context") or "") for _, document in documents)
    merged: dict[str, Any] = {"current-context": next(filter(None, contexts), "")}
    for kind, (holds, paths) in _ENTRIES.items():
        found: dict[str, dict[str, Any]] = {}
        for folder, document in documents:
            for entry in document.get(kind) or ():
                found.setdefault(str(entry["name"]), _resolved(entry, holds, paths, folder))
        merged[kind] = list(found.values())
    return merged


class TokenFile:
    """A file with a bearer token that somebody else renews, as the kubelet does for every pod.

    Args:
        path: The file.

    Raises:
        ConfigError: It cannot be read, or is empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        if not self.token():
            raise ConfigError(f"the token file {path} is not there, or is empty", hint="the kubeconfig names it")

    def token(self) -> str:
        """Return the token as it is now; the last one where the file is just being replaced."""
        with contextlib.suppress(OSError):
            self._token = self._path.read_text().strip() or self._token
        return self._token


def _document(file: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(file.read_text()) or {}
        for kind, (holds, _) in _ENTRIES.items():
            for entry in document.get(kind) or ():
                entry["name"], entry[holds] = str(entry["name"]), entry.get(holds) or {}
    except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"kubeconfig {file}: {reason}", hint=f"kubectl --kubeconfig {file} config get-contexts"
        ) from error
    return document


def _resolved(entry: dict[str, Any], holds: str, paths: tuple[str, ...], folder: Path) -> dict[str, Any]:
    held = dict(entry[holds])
    for key in paths:
        if held.get(key):
            held[key] = str(folder / held[key])
    plugin = held.get("exec")
    if isinstance(plugin, dict) and os.sep in str(plugin.get("command", "")):
        held["exec"] = {**plugin, "command": str(folder / plugin["command"])}
    return {"name": entry["name"], holds: held}
