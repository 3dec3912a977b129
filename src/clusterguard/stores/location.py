"""Where a store is, in one line: what a user types, a drill file names, and `ObjectStore.url` gives back."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from clusterguard.errors import ConfigError
from clusterguard.stores.bucket_names import check_bucket_name
from clusterguard.stores.local import LocalStore
from clusterguard.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterguard.stores.base import ObjectStore
    from clusterguard.stores.s3 import S3Store

__all__ = ["open_store"]

_FORMS = "file:///absolute/path, /absolute/path, ./relative/path, s3://bucket/prefix?endpoint=… or memory:"
_S3_PARAMETERS = {
    "endpoint": "endpoint",
    "region": "region",
    "pathStyle": "path_style",
    "ca": "ca_file",
    "profile": "profile",
    "checksum": "checksum",
    "sse": "sse",
    "sseKey": "sse_key",
}
_ENDPOINT_SCHEMES = {"http", "https"}


def open_store(location: str | os.PathLike[str]) -> ObjectStore:
    """Return the store at a location; nothing is connected to or created yet.

    Locations are ``file:///path``, ``/path``, ``./path``, ``~/path``, ``memory:`` (new and empty) and
    ``s3://bucket/prefix`` with any of the parameters ``endpoint`` (a URL), ``region``, ``pathStyle``
    (``true`` or ``false``), ``ca`` (a PEM file), ``profile``, ``checksum`` (``CRC32``, ``SHA256`` or
    ``when_required``), ``sse`` and ``sseKey``. Credentials come from AWS's usual chain and are refused in a location.

    Raises:
        ConfigError: The location is none of these.
    """
    text = os.fspath(location)
    if not isinstance(location, str) or text.startswith(("/", "./", "../", "~/")) or text in {".", "..", "~"}:
        return LocalStore(Path(text).expanduser())
    url = _split(text)
    if "@" in url.netloc:
        raise ConfigError(
            "a store's location must not contain a user or a password: it appears in logs and reports",
            hint="take it out; S3 takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY from the environment",
        )
    openers = {"file": _open_local, "s3": _open_s3, "memory": _open_memory}
    if url.scheme not in openers:
        raise ConfigError(
            f"{text!r} is not a valid store: it should look like {_FORMS}", hint=_guess(text, url, openers)
        )
    return openers[url.scheme](url)


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a valid store: {error}", hint=f"write it like {_FORMS}") from error


def _guess(text: str, url: SplitResult, schemes: Iterable[str]) -> str | None:
    if not url.scheme:
        return f"for a directory, write ./{text}"
    close = difflib.get_close_matches(url.scheme, schemes, n=1, cutoff=0.5)
    return f"did you mean {close[0]}:?" if close else None


def _open_memory(url: SplitResult) -> ObjectStore:
    if url.netloc or url.path or url.query or url.fragment:
        raise ConfigError(f"{url.geturl()!r}: a store in memory has no name", hint="write memory:")
    return MemoryStore()


def _open_local(url: SplitResult) -> ObjectStore:
    if url.query or url.fragment:
        raise ConfigError(
            f"{url.geturl()!r}: a directory takes no parameters", hint="write ? as %3F and # as %23 in a path"
        )
    if url.netloc not in {"", "localhost"} or not url.path.startswith("/"):
        raise ConfigError(
            f"{url.geturl()!r} is not an absolute path on this machine",
            hint="write file:///path, with three slashes",
        )
    return LocalStore(Path(unquote(url.path)))


def _open_s3(url: SplitResult) -> S3Store:
    if not url.netloc:
        raise ConfigError(f"s3://{url.path}: no bucket given", hint="write s3://bucket/prefix")
    if ":" in url.netloc:
        raise ConfigError(
            f"s3://{url.netloc} is a host and a port where a bucket's name belongs",
            hint=f"write s3://bucket/prefix?endpoint=https://{url.netloc}",
        )
    if url.fragment:
        raise ConfigError(f"s3://{url.netloc}: a location has no # part", hint="write # as %23")
    settings = _s3_settings(url)
    try:
        check_bucket_name(url.netloc, endpoint=settings.get("endpoint", ""), region=settings.get("region", ""))
    except ValueError as error:
        raise ConfigError(f"s3://{url.netloc}: {error}", code="invalid-bucket-name", hint="correct the name") from error
    from clusterguard.stores.s3 import S3Store  # boto3 is slow to load

    return S3Store(bucket=url.netloc, prefix=unquote(url.path), **settings)


def _s3_settings(url: SplitResult) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in _parameters(url):
        if name not in _S3_PARAMETERS:
            raise ConfigError(f"s3://{url.netloc}: there is no parameter {name!r}", hint=_did_you_mean(name))
        if _S3_PARAMETERS[name] in settings:
            raise ConfigError(f"s3://{url.netloc}: {name} is given twice", hint="keep one of the two")
        settings[_S3_PARAMETERS[name]] = _read(name, value)
    return settings


def _parameters(url: SplitResult) -> list[tuple[str, str]]:
    try:
        return parse_qsl(url.query, keep_blank_values=True, strict_parsing=True) if url.query else []
    except ValueError as error:
        # The query may hold anything, secrets too: it is not repeated.
        raise ConfigError(
            f"s3://{url.netloc}: what follows the ? is not name=value, joined by &",
            hint="write ?region=eu-west-1",
        ) from error


def _did_you_mean(name: str) -> str:
    by_lower = {known.lower(): known for known in _S3_PARAMETERS}
    close = difflib.get_close_matches(name.lower().replace("_", "").replace("-", ""), by_lower, n=1, cutoff=0.5)
    return f"did you mean {by_lower[close[0]]}?" if close else f"there are {', '.join(_S3_PARAMETERS)}"


def _read(name: str, value: str) -> object:
    if not value:
        raise ConfigError(f"{name}= has no value", hint=f"leave {name} out, or give it one")
    match name:
        case "pathStyle":
            return _read_choice(name, value, {"true": True, "false": False})
        case "checksum":
            from clusterguard.stores.s3_checksums import Checksum

            return _read_choice(name, value, {choice: choice for choice in get_args(Checksum)})
        case "ca":
            return Path(value).expanduser().absolute()
        case "endpoint":
            return _read_endpoint(value)
        case _:
            return value


def _read_choice(name: str, value: str, choices: dict[str, Any]) -> object:
    by_lower = {choice.lower(): read for choice, read in choices.items()}
    if value.lower() not in by_lower:
        raise ConfigError(f"{name}={value}: there is no such choice", hint=f"one of {', '.join(choices)}")
    return by_lower[value.lower()]


def _read_endpoint(value: str) -> str:
    if "@" in value:
        raise ConfigError("endpoint= holds a user or a password", hint="give credentials to AWS's usual chain")
    endpoint = _split(value)
    if endpoint.scheme not in _ENDPOINT_SCHEMES or not endpoint.netloc or endpoint.query or endpoint.fragment:
        raise ConfigError(f"endpoint={value} is not the URL of a server", hint="write https://host:port")
    return value
