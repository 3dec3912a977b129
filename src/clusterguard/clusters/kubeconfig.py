"""kubeconfig files, merged as kubectl merges them, and how to connect as they say: the only user of ``kubernetes``.

The official client does what is hard to get right and differs between clusters: credential plugins (``exec``, as EKS
needs), TLS, the connection pool. It merges files, too, but lets the last file's current context win, where kubectl
takes the first one's, and looks for a user's certificate beside the file that has the cluster. Source: client-go,
tools/clientcmd/loader.go.
"""

from __future__ import annotations

import contextlib
import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from clusterguard.errors import ClusterError, ConfigError
from clusterguard.scratch import in_memory, private_folder
from clusterguard.sockets import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import urllib3

__all__ = ["Connection", "TokenFile", "connect", "default_kubeconfig", "read_kubeconfig"]

_POOL_SIZE = 32
# The official client remembers the files that it wrote, in whichever folder, for every thread.
_LOADING = threading.Lock()

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

    Raises:
        ConfigError: None of the files is there, or one is not a kubeconfig.
    """
    files = [Path(name).expanduser() for name in str(path).split(os.pathsep) if name]
    documents = [(file.absolute().parent, _document(file)) for file in files if file.exists()]
    if not documents:
        raise ConfigError(f"kubeconfig {path}: no such file", hint="name one, or set KUBECONFIG")
    if not any(document for _, document in documents):
        raise ConfigError(f"kubeconfig {path} is empty", hint="name another one, or set KUBECONFIG")
    contexts = (str(document.get("current-context") or "") for _, document in documents)
    merged: dict[str, Any] = {"current-context": next(filter(None, contexts), "")}
    for kind, (holds, paths) in _ENTRIES.items():
        found: dict[str, dict[str, Any]] = {}
        for folder, document in documents:
            for entry in document.get(kind) or ():
                found.setdefault(str(entry["name"]), _resolved(entry, holds, paths, folder))
        merged[kind] = list(found.values())
    return merged


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What it takes to connect to the API server by another protocol, as the same user.

    Attributes:
        server: Its URL, without a slash at the end.
        headers: Those that say who we are; never shown.
        ca: PEM file of the authority that we trust, or None for those that the system trusts.
        cert: PEM file of our client certificate.
        key: PEM file of its key.
        verify: Whether the server must have a trusted certificate at all.
        server_name: Name that its certificate must have, where that is not its host's.
        proxy: URL of the proxy on the way.
    """

    server: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: bool = True
    server_name: str | None = None
    proxy: str | None = None


class Connected(NamedTuple):
    """How to send requests as a kubeconfig says; closing ``files`` removes the keys that were copied to memory."""

    connection: Connection
    pool: urllib3.PoolManager
    auth_headers: Callable[[], Mapping[str, str]]
    files: ExitStack


def connect(path: str, context: str | None) -> Connected:
    """Prepare requests as a kubeconfig says; none is sent."""
    with ExitStack() as stack:
        configuration, token_file = _load_kubeconfig(path, context, stack)
        from kubernetes import client

        # Built by the official client, so that TLS and proxies are as it does them.
        pool = client.ApiClient(configuration=configuration).rest_client.pool_manager
        files = stack.pop_all()

    def auth_headers() -> Mapping[str, str]:
        if token_file is not None:
            return {"Authorization": f"Bearer {token_file.token()}"}
        # This refreshes tokens that credential plugins gave for a limited time.
        settings = configuration.auth_settings().get("BearerToken")
        return {"Authorization": settings["value"]} if settings and settings["value"] else {}

    connection = Connection(
        server=configuration.host.rstrip("/"),
        ca=configuration.ssl_ca_cert,
        cert=configuration.cert_file,
        key=configuration.key_file,
        verify=configuration.verify_ssl,
        server_name=getattr(configuration, "tls_server_name", None),
        proxy=configuration.proxy,
    )
    return Connected(connection, pool, auth_headers, files)


class TokenFile:
    """A file with a bearer token that somebody else renews, as the kubelet does for every pod."""

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


def _load_kubeconfig(
    path: str, context: str | None, files: ExitStack
) -> tuple[Any, TokenFile | None]:  # the package ships no types
    from kubernetes import client
    from kubernetes.config import ConfigException, kube_config

    merged = read_kubeconfig(path)
    kubernetes_config: Any = kube_config  # it has no annotations
    configuration = type.__call__(client.Configuration)  # not a copy of a default that others may have set
    try:
        context = context or merged["current-context"] or None
        user, cluster = _user_and_cluster(merged, context)
        token_file = TokenFile(Path(user.pop("tokenFile"))) if user.get("tokenFile") else None
        if token_file is not None:
            user["token"] = token_file.token()
        _load_into_memory(kubernetes_config, configuration, files, config_dict=merged, context=context)
    except (ConfigException, OSError, TypeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"kubeconfig {path}: {reason}", hint=f"KUBECONFIG={path} kubectl config get-contexts"
        ) from error
    has_credentials = bool(configuration.api_key) or bool(configuration.cert_file)
    if "exec" in user and not has_credentials:
        # The official client logs this and goes on without any identity.
        command = user["exec"].get("command", "its credential plugin")
        raise ClusterError(
            f"kubeconfig {path}: {command} gave no credentials",
            code="no-credentials",
            fields={"command": command},
            hint=f"run {command} by hand to see why",
        )
    if is_loopback(configuration.host) and not cluster.get("proxy-url"):
        configuration.proxy = None
    configuration.connection_pool_maxsize = _POOL_SIZE
    configuration.retries = False
    return configuration, token_file


def _load_into_memory(
    kubernetes_config: Any,  # noqa: ANN401 - the package ships no types
    configuration: Any,  # noqa: ANN401 - likewise
    files: ExitStack,
    **which: object,
) -> None:
    """Load a kubeconfig; what the official client writes to files of it, keys among them, is moved into memory."""
    with _LOADING, private_folder() as folder:
        kubernetes_config.load_kube_config_from_dict(
            client_configuration=configuration, persist_config=False, temp_file_path=str(folder), **which
        )
        for name in ("ssl_ca_cert", "cert_file", "key_file"):
            file = getattr(configuration, name)
            if file and Path(file).is_relative_to(folder):
                setattr(configuration, name, str(files.enter_context(in_memory(Path(file).read_bytes())).path))


def _user_and_cluster(merged: Mapping[str, Any], context: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the chosen context's user and cluster are; the official client tells what is missing."""
    contexts, users, clusters = (
        {each["name"]: each[kind] for each in merged[f"{kind}s"]} for kind in ("context", "user", "cluster")
    )
    chosen = contexts.get(context, {})
    return users.get(chosen.get("user"), {}), clusters.get(chosen.get("cluster"), {})
