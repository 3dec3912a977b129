"""What the pods that clusterguard describes have in common: where they find things, and how little they may do."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from clusterguard.documents.reading import walk
from clusterguard.documents.yamlfile import parse_documents, read_source
from clusterguard.errors import ConfigError
from clusterguard.policies.deploy.templates import fill

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from clusterguard.documents.yamlfile import DataPath

__all__ = [
    "SECRETS_FOLDER",
    "USER",
    "Json",
    "Mounted",
    "below",
    "config_map",
    "config_volume",
    "credentials_variable",
    "drill_files",
    "drill_secrets",
    "files_beside",
    "pod",
    "scratch_volumes",
    "secret_key",
    "secret_volume",
    "storage_volumes",
    "volume",
]

Json: TypeAlias = dict[str, Any]
Mounted: TypeAlias = tuple[Json, Json]
"""A volume, and where it is mounted."""

SECRETS_FOLDER: Final = "/etc/clusterguard/secrets"
"""Where pods find what a document calls secret and names by file: the keys of a Secret."""
_STORAGE_FOLDER: Final = "/etc/clusterguard/storage"  # `credentials` in AWS's form, and what else is in that Secret
USER: Final = 65532
"""The image's user, and group."""

# What streams passes any number of bytes through the same memory; drills may start a control plane of their own.
_MODEST: Final[Json] = {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}}
_PROVING: Final[Json] = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}

_LONGEST_CONFIG: Final = 1 << 20  # bytes; of everything in a ConfigMap
_ABSENT: Final = ("account", "deadline", "host_network", "dns_policy", "node_selector", "tolerations")


def pod(
    *,
    image: str,
    args: list[str],
    env: Iterable[Json],
    volumes: Iterable[Mounted],
    drills: bool,
    token: bool = False,
    user: int = USER,
    **more: object,
) -> Json:
    """Return the spec of a pod with one container, whose processes are a user's; 0 is root, without any capability."""
    mounted = tuple(volumes)
    filled: Json = fill(
        "pod",
        image=image,
        args=args,
        env=list(env),
        volumes=[source for source, _ in mounted],
        mounts=[mount for _, mount in mounted],
        resources=_PROVING if drills else _MODEST,
        token=token,
        user=user,
        group=user or None,
        unprivileged=user != 0,
        **{**dict.fromkeys(_ABSENT), **more},
    )
    return filled


def volume(name: str, source: Json, path: str, *, writable: bool = False) -> Mounted:
    """Return a volume and where it is mounted."""
    return {"name": name, **source}, {"name": name, "mountPath": path} | ({} if writable else {"readOnly": True})


def scratch_volumes(size: str) -> Iterator[Mounted]:
    """Yield what may be written to: a full one ends the pod, and not the node."""
    yield volume("tmp", {"emptyDir": {"sizeLimit": size}}, "/tmp", writable=True)  # noqa: S108 - in a container
    yield volume("home", {"emptyDir": {"sizeLimit": size}}, "/home/clusterguard", writable=True)


def secret_volume(name: str, secret: str, path: str, *, user: int = USER, keys: Iterable[str] = ()) -> Mounted:
    """Return a Secret as a volume that a pod's user can read: only the given keys of it, or all."""
    items = [{"key": key, "path": key} for key in keys]
    mode = 0o400 if user == 0 else 0o440
    return volume(
        name, {"secret": {"secretName": secret, "defaultMode": mode} | ({"items": items} if items else {})}, path
    )


def storage_volumes(secret: str, *, user: int = USER) -> Iterator[Mounted]:
    """Yield the Secret with the credentials for stores; nothing where pods have an identity without one."""
    if secret:
        yield secret_volume("storage", secret, _STORAGE_FOLDER, user=user)


def credentials_variable(secret: str) -> Iterator[Json]:
    """Yield the variable that tells S3 stores where the credentials of that Secret are."""
    if secret:
        yield {"name": "AWS_SHARED_CREDENTIALS_FILE", "value": f"{_STORAGE_FOLDER}/credentials"}


def secret_key(file: str) -> str:
    """Return the key of a Secret that a file is."""
    if not below(file, SECRETS_FOLDER) or "/" in file.removeprefix(f"{SECRETS_FOLDER}/"):
        raise ConfigError(
            f"a secret is to be taken from {file}, which no pod has",
            hint=f"name it {SECRETS_FOLDER}/{PurePosixPath(file).name}: pods find the keys of a Secret there",
        )
    return PurePosixPath(file).name


def config_map(metadata: Json, files: Mapping[str, str], **more: str) -> Json:
    """Return a ConfigMap with files, whose keys have no slashes."""
    data = {_config_key(path): text for path, text in files.items()} | more
    filled: Json = fill("config", metadata=metadata, data=data)
    return filled


def config_volume(name: str, config: str, paths: Iterable[str], folder: str) -> Mounted:
    """Return a ConfigMap as a volume with the files that it was made of."""
    items = [{"key": _config_key(path), "path": path} for path in paths]
    return volume(name, {"configMap": {"name": config, "items": items}}, folder)


def _config_key(path: str) -> str:
    return path.replace("/", "..")


def below(path: str, folder: str) -> bool:
    """Return whether a path lies in a folder, by its letters alone."""
    return path.startswith(f"{folder.rstrip('/')}/") and ".." not in PurePosixPath(path).parts


def drill_files(drills: Iterable[Path]) -> Iterator[Path]:
    """Yield drills, and the files that they apply.

    Raises:
        ConfigError: A drill file cannot be read, or is not YAML.
    """
    for drill in drills:
        yield drill
        for path, text in _texts(drill):
            if "apply" in path and {"file", "files"} & set(path[-2:]):
                yield drill.parent / text


def drill_secrets(drills: Iterable[Path]) -> Iterator[Path]:
    """Yield the files with keys that drills name: an API server's EncryptionConfiguration.

    Raises:
        ConfigError: A drill file cannot be read, or is not YAML.
    """
    for drill in drills:
        for path, text in _texts(drill):
            if path[-2:] == ("storedBackup", "encryptionConfig"):
                yield drill.parent / text


def _texts(drill: Path) -> Iterator[tuple[DataPath, str]]:
    for document in parse_documents(read_source(drill)):
        for path, value in walk(document.data):
            if isinstance(value, str):
                yield path, value


def files_beside(document: Path, *, name: str, named: Iterable[Path]) -> dict[str, str]:
    """Return a document under the given name and the files that it names, with their text, by path from its folder.

    Raises:
        ConfigError: One is not below that folder, cannot be read, or all are too large for a ConfigMap.
    """
    folder = document.parent.resolve()
    files = {name: _text_of(document)}
    for file in named:
        if not file.resolve().is_relative_to(folder):
            raise ConfigError(
                f"{file} is not beside {document.name}, so pods would not find it under the name that it has there",
                hint=f"move it below {document.parent}, and name it from there",
            )
        files[file.resolve().relative_to(folder).as_posix()] = _text_of(file)
    if (size := sum(len(text.encode()) for text in files.values())) > _LONGEST_CONFIG:
        raise ConfigError(
            f"{document.name} and its files are {size:,} bytes, and a ConfigMap holds {_LONGEST_CONFIG:,}",
            hint="put large manifests into an image of your own, or take several documents",
        )
    return files


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {path}: {reason}", hint="it is named by the document beside it") from error
