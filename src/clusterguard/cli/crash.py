"""An exception that nobody expected: its traceback is kept in a file for a bug report, and it is never a verdict."""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path
from platform import python_version

from platformdirs import user_state_path

from clusterguard import __version__
from clusterguard.policies.files.redaction import without_secrets

__all__ = ["describe", "keep_traceback", "traceback_of"]

_PACKAGE = Path(__file__).parents[1]


def describe(error: Exception) -> str:
    """Return the exception in one line, with the line of ours that it passed last."""
    ours = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    place = f" ({Path(ours[-1].filename).relative_to(_PACKAGE.parent)}:{ours[-1].lineno})" if ours else ""
    words = " ".join(without_secrets(str(error)).split())
    return f"unexpected {type(error).__name__}{f': {words}' if words else ''}{place}"


def traceback_of(error: Exception) -> str:
    """Return the traceback as Python prints it, which has no values of variables, without what may be a secret."""
    return without_secrets("".join(traceback.format_exception(error)))


def keep_traceback(error: Exception, *, folder: Path | None = None) -> Path:
    """Write the traceback to a new file that only this user can read, and return its path.

    It has neither the command line's arguments nor the environment, which may hold secrets.

    Args:
        error: The exception.
        folder: Where to, by default ``crashes`` in this user's state folder.

    Raises:
        OSError: There is no place to write it to.
    """
    folder = folder or user_state_path("clusterguard") / "crashes"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    handle, path = tempfile.mkstemp(prefix="crash-", suffix=".txt", dir=folder)  # mode 0600, and never an existing file
    with os.fdopen(handle, "w") as file:
        file.write(f"clusterguard {__version__}, Python {python_version()}\n\n{traceback_of(error)}")
    return Path(path)
