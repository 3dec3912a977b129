"""Options that several nouns share: how to reach etcd, where snapshots rest, which cluster."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from datetime import UTC, datetime
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clusterguard.errors import ConfigError
from clusterguard.secret_files import read_secret_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from clusterguard.clusters.base import Cluster, EtcdAccess
    from clusterguard.etcd.opening import Location, OpenedSnapshot
    from clusterguard.model.progress import ProgressSink
    from clusterguard.policies.policy import Policy

__all__ = [
    "AllowContextOption",
    "CaOption",
    "CertOption",
    "ClusterOption",
    "EndpointsOption",
    "KeyOption",
    "KubeconfigOption",
    "LockTimeoutOption",
    "Opening",
    "PasswordFileOption",
    "PolicyArgument",
    "PolicyArguments",
    "ScratchOption",
    "StoreOption",
    "UserOption",
    "duration_of",
    "etcd_access",
    "opened",
    "read_policy",
    "require_duration",
    "source_of",
    "with_options",
]

StoreOption = Annotated[
    str,
    typer.Option("--store", help="Where snapshots rest: a folder, or s3://BUCKET/PREFIX.", envvar="CLUSTERGUARD_STORE"),
]
ClusterOption = Annotated[
    str,
    typer.Option(
        "--cluster", help="embedded:NAME, kind:NAME, context:NAME or kubeconfig:PATH.", envvar="CLUSTERGUARD_CLUSTER"
    ),
]
KubeconfigOption = Annotated[
    Path | None, typer.Option(help="The kubeconfig of context: clusters.", envvar="KUBECONFIG")
]
EndpointsOption = Annotated[
    str, typer.Option("--endpoints", help="etcd's client URLs, with commas.", envvar="ETCDCTL_ENDPOINTS")
]
CaOption = Annotated[Path | None, typer.Option("--cacert", help="etcd's CA.", envvar="ETCDCTL_CACERT")]
CertOption = Annotated[Path | None, typer.Option("--cert", help="Client certificate.", envvar="ETCDCTL_CERT")]
KeyOption = Annotated[Path | None, typer.Option("--key", help="Its key.", envvar="ETCDCTL_KEY")]
UserOption = Annotated[str | None, typer.Option("--user", help="User of etcd's own authentication.")]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option("--password-file", help="File with the user's password; or set ETCDCTL_PASSWORD."),
]

ScratchOption = Annotated[
    Path | None,
    typer.Option(
        "--scratch",
        help="Folder with room for a whole database, by default TMPDIR or /var/tmp. Stores that are folders need none.",
        metavar="DIR",
    ),
]


AllowContextOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-context",
        help="Glob of contexts that drills may destroy in, beside clusters that this run creates: kind-NAME of "
        "kind:NAME, clusterguard-NAME of embedded:NAME, the path of kubeconfig:PATH.",
    ),
]
LockTimeoutOption = Annotated[
    str,
    typer.Option(
        "--lock-timeout",
        help="Wait so long for another run that is at work in a cluster, such as 30m.",
        metavar="DURATION",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The options that open a snapshot which any program saved."""

    at: Annotated[
        str, typer.Option("--at", help="Of a folder, take the newest up to this time (UTC).", metavar="TIME")
    ] = ""
    identity: Annotated[
        list[Path] | None,
        typer.Option(
            "--identity", help="File with a private key of age or SSH, for what is encrypted.", metavar="FILE"
        ),
    ] = None
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="File with the passphrase of age.", metavar="FILE")
    ] = None
    scratch: ScratchOption = None

    @contextmanager
    def opened(self, location: str) -> Iterator[OpenedSnapshot]:
        """Open the snapshot at a location; ``-`` is standard input."""
        from clusterguard.etcd.opening import open_snapshot

        with open_snapshot(source_of(location), **self.given()) as snapshot:
            yield snapshot

    def given(self) -> dict[str, Any]:
        """Return what `open_snapshot` takes beside the location."""
        from clusterguard.etcd.opening import encryption_from

        encryption = encryption_from(self.identity or (), passphrase_file=self.passphrase_file)
        return {"at": _time_of(self.at), "encryption": encryption, "scratch": self.scratch}


def source_of(location: str) -> Location:
    """Return what `open_snapshot` takes for an argument: ``-`` is standard input."""
    return sys.stdin.buffer if location == "-" else location


def _time_of(text: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        if len(text) == len("2026-03-01"):  # a whole day: to its end
            time = time.replace(hour=23, minute=59, second=59, microsecond=999999)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"--at: {text!r} is not a valid time", hint="write it like 2026-03-01T02:00:00Z or 2026-03-01"
        ) from error


PolicyArgument = Annotated[Path, typer.Argument(help="The policy file.", metavar="POLICY")]
PolicyArguments = Annotated[list[Path], typer.Argument(help="Policy files.", metavar="POLICY...")]


def read_policy(path: Path) -> Policy:
    """Load a policy with this process's environment."""
    from clusterguard.policies.files.load import load_policy

    return load_policy(path, environ=os.environ)


def duration_of(text: str, option: str) -> timedelta | None:
    """Return how long an option's text means, or None for an empty one."""
    return require_duration(text, option) if text else None


def require_duration(text: str, option: str) -> timedelta:
    """Return how long an option's text means."""
    from clusterguard.model.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option that a dataclass lists, in the place of its parameter of that type.

    Typer wants each option spelled out in the signature of each command; so commands share a dataclass of them, and
    the signature is made from it.
    """
    own = signature(command, eval_str=True).parameters
    bundles = {
        name: each.annotation
        for name, each in own.items()
        if isinstance(each.annotation, type) and is_dataclass(each.annotation)
    }
    listed = {name: signature(bundle, eval_str=True).parameters for name, bundle in bundles.items()}
    spelled = [
        each.replace(kind=Parameter.KEYWORD_ONLY)
        for name, parameter in own.items()
        for each in (listed[name].values() if name in listed else (parameter,))
    ]

    @wraps(command)
    def run(**given: Any) -> None:  # noqa: ANN401 - typer has checked them against the signature
        for name, bundle in bundles.items():
            given[name] = bundle(**{option: given.pop(option) for option in listed[name]})
        command(**given)

    run.__signature__ = signature(command).replace(parameters=spelled)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in spelled}
    return run


def etcd_access(
    *,
    endpoints: str,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    user: str | None,
    password_file: Path | None,
    environ: dict[str, str],
) -> EtcdAccess | None:
    """Return how to connect to the etcd that the options name, or None where they name none."""
    if not endpoints:
        return None
    from clusterguard.clusters.base import EtcdAccess

    for file in filter(None, (ca, cert, key, password_file)):
        if not file.is_file():
            raise ConfigError(f"no such file: {file}")
    if (cert is None) != (key is None):
        raise ConfigError("a client certificate needs its key", hint="give both --cert and --key")
    password = environ.get("ETCDCTL_PASSWORD")
    if password_file:
        password = read_secret_file(password_file, what="the password").rstrip("\n")
    if user and password is None:
        raise ConfigError(
            f"no password for etcd user {user!r}",
            hint="--password-file, or ETCDCTL_PASSWORD in the environment",
        )
    return EtcdAccess(
        endpoints=tuple(part.strip() for part in endpoints.split(",") if part.strip()),
        ca=ca,
        cert=cert,
        key=key,
        username=user,
        password=password,
    )


@contextmanager
def opened(cluster_ref: str, *, kubeconfig: Path | None, progress: ProgressSink) -> Iterator[Cluster]:
    """Open the cluster that a reference names, and close it afterwards: whatever it is, it was there before."""
    from clusterguard.clusters.opening import existing_cluster  # slow, and --help need not wait for it

    with existing_cluster(cluster_ref, kubeconfig=kubeconfig, progress=progress) as cluster:
        yield cluster
