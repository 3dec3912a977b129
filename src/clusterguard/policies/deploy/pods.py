"""What the pods that clusterguard describes have in common: where they find things, and how little they may do."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from clusterguard.documents.reading import walk
from clusterguard.documents.yamlfile import parse_documents, read_source
from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "MODEST",
    "PROVING",
    "SECRETS_FOLDER",
    "STORAGE_FOLDER",
    "USER",
    "Json",
    "Mounted",
    "below",
    "config_key",
    "config_source",
    "confined",
    "credentials_of",
    "drill_files",
    "files_beside",
    "scratch_volumes",
    "secret_key",
    "secret_source",
    "security_of",
    "volume",
]

Json: TypeAlias = dict[str, Any]
Mounted: TypeAlias = tuple[Json, Json]
"""A volume, and where it is mounted."""

SECRETS_FOLDER: Final = "/etc/clusterguard/secrets"
"""Where pods find what a document calls secret and names by file: the keys of a Secret."""
STORAGE_FOLDER: Final = "/etc/clusterguard/storage"
"""Where pods find ``credentials``, a credentials file of AWS's form, and whatever else is in the same Secret."""
USER: Final = 65532
"""The image's user, and his group."""

MODEST: Final[Json] = {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}}
"""For what streams: bytes of any number pass through the same memory."""
PROVING: Final[Json] = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}
"""For drills, which may start a control plane of their own."""

_LONGEST_CONFIG: Final = 1 << 20  # bytes; of everything in a ConfigMap


def security_of(user: int) -> Json:
    """Return the security context of a pod whose processes are a user's; 0 is root, without any capability."""
    context: Json = {
        "runAsUser": user,
        "runAsGroup": user,
        "runAsNonRoot": user != 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    # What Secrets hold belongs to root: its group is how another user reads it. For root it stays root's alone.
    return context if user == 0 else {**context, "fsGroup": user}


def confined(*, image: str, args: list[str], env: Iterable[Json], volumes: Iterable[Mounted], resources: Json) -> Json:
    """Return the one container of a pod and its volumes: nothing to gain, and nothing to write but what is mounted."""
    mounted = tuple(volumes)
    container = {
        "name": "clusterguard",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "env": list(env),
        "volumeMounts": [mount for _, mount in mounted],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {"containers": [container], "volumes": [source for source, _ in mounted]}


def volume(name: str, source: Json, path: str, *, writable: bool = False) -> Mounted:
    """Return a volume and where it is mounted."""
    return {"name": name, **source}, {"name": name, "mountPath": path} | ({} if writable else {"readOnly": True})


def scratch_volumes(size: str) -> Iterator[Mounted]:
    """Yield what may be written to: a full one ends the pod, and not the node."""
    yield volume("tmp", {"emptyDir": {"sizeLimit": size}}, "/tmp", writable=True)  # noqa: S108 - in a container
    yield volume("home", {"emptyDir": {"sizeLimit": size}}, "/home/clusterguard", writable=True)


def secret_source(name: str, *, user: int = USER, keys: Iterable[str] = ()) -> Json:
    """Return a Secret as a volume that a pod's user can read: only the given keys of it, or all."""
    items = [{"key": key, "path": key} for key in keys]
    mode = 0o400 if user == 0 else 0o440
    return {"secret": {"secretName": name, "defaultMode": mode} | ({"items": items} if items else {})}


def secret_key(file: str) -> str:
    """Return the key of a Secret that a file is.

    Raises:
        ConfigError: Pods have no such file.
    """
    if not below(file, SECRETS_FOLDER) or "/" in file.removeprefix(f"{SECRETS_FOLDER}/"):
        raise ConfigError(
            f"a secret is to be taken from {file}, which no pod has",
            hint=f"name it {SECRETS_FOLDER}/{PurePosixPath(file).name}: pods find the keys of a Secret there",
        )
    return PurePosixPath(file).name


def config_source(name: str, paths: Iterable[str]) -> Json:
    """Return a ConfigMap as a volume with the files that it was made of."""
    return {"configMap": {"name": name, "items": [{"key": config_key(path), "path": path} for path in paths]}}


def config_key(path: str) -> str:
    """Return the key of a file in a ConfigMap, which has no slashes."""
    return path.replace("/", "..")


def credentials_of(folder: str) -> Json:
    """Return the variable that tells S3 stores where the credentials file is."""
    return {"name": "AWS_SHARED_CREDENTIALS_FILE", "value": f"{folder}/credentials"}


def below(path: str, folder: str) -> bool:
    """Return whether a path lies in a folder, by its letters alone."""
    return path.startswith(f"{folder.rstrip('/')}/") and ".." not in PurePosixPath(path).parts


def drill_files(drill: Path) -> Iterator[Path]:
    """Yield the files that a drill applies.

    Raises:
        ConfigError: The drill file cannot be read, or is not YAML.
    """
    for document in parse_documents(read_source(drill)):
        for path, value in walk(document.data):
            if isinstance(value, str) and "apply" in path and {"file", "files"} & set(path[-2:]):
                yield drill.parent / value


def files_beside(document: Path, *, name: str, named: Iterable[Path]) -> Mapping[str, str]:
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
        raise ConfigError(f"{path} cannot be read: {reason}", hint="it is named by the document beside it") from error
