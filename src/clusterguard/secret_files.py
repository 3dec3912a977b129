"""Files with keys, passwords and addresses that nobody else may know: read here, and only where others may not read."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_secret_file"]

_LARGEST_BYTES: Final = 64 * 1024  # a key is a few hundred bytes; anything larger is something else
_BY_GROUP_OR_OTHERS: Final = 0o077
_GROUP_READS: Final = 0o040


def read_secret_file(path: Path, *, what: str, private: bool = True) -> str:
    """Return the text of a file.

    A private file of this user must be readable by nobody else, as ssh has it. One of another user may be readable by
    our group too: that is how Kubernetes gives secrets (0440, of root) to a pod that does not run as root.

    Args:
        path: The file; ``~`` is this user's home.
        what: Is looked for, for messages; they never hold any of the content.
        private: Whether others may not read it; nobody else may write to a file in any case.

    Raises:
        ConfigError: It cannot be read, is not text, or others may read or change it.
    """
    try:
        with path.expanduser().open("rb") as file:
            # Of the open file: the name may mean another one by the time it is read.
            _require_safe(path, os.fstat(file.fileno()), what=what, private=private)
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{what}: {path}: {error.strerror}",
            code="file-unreadable",
            fields={"what": what, "path": str(path), "errno": error.errno},
            hint="check the path, and that this user may read it",
        ) from error
    if len(data) > _LARGEST_BYTES:
        raise ConfigError(f"{what}: {path} is larger than any file of keys", hint="check the path")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(
            f"{what}: {path} is not text",
            hint="an identity that is itself encrypted must be decrypted first: age -d -o FILE",
        ) from None


def _require_safe(path: Path, status: os.stat_result, *, what: str, private: bool) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not private:
        if mode & stat.S_IWOTH:
            raise ConfigError(
                f"{what}: {path} is writable by everybody, who could add keys of their own (mode {mode:04o})",
                code="secret-file-mode",
                fields={"what": what, "mode": mode},
                hint=f"chmod o-w {path}",
            )
        return
    allowed = _GROUP_READS if status.st_uid != os.geteuid() else 0
    if mode & _BY_GROUP_OR_OTHERS & ~allowed:
        raise ConfigError(
            f"{what}: {path} is accessible to others (mode {mode:04o})",
            code="secret-file-mode",
            fields={"what": what, "mode": mode},
            hint=f"chmod 600 {path}; in Kubernetes, give the volume of the secret defaultMode: 0440",
        )
