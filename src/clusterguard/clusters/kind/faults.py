"""What Docker and kind say when something is wrong, and what to do about it. Pure."""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["docker_hint", "kind_hint", "port_was_taken", "telling", "was_taken"]

_DOCKER = (
    (
        ("permission denied",),
        "let this user use Docker: `sudo usermod -aG docker $USER` and log in again, or set Docker up rootless",
    ),
    (
        ("cannot connect to the docker daemon", "is the docker daemon running", "connection refused"),
        "start Docker: `sudo systemctl start docker`, or Docker Desktop; DOCKER_HOST names another one",
    ),
)
_KIND = (
    (
        ("failed to pull image", "pull access denied", "manifest unknown", "not present locally"),
        "`docker pull` it, or name an image that is there: CLUSTERGUARD_KIND_IMAGE, --image",
    ),
    (("no space left on device",), "make room for Docker: `docker system df` shows what takes it"),
    (
        ("too many open files", "inotify"),
        "raise fs.inotify.max_user_instances and max_user_watches: https://kind.sigs.k8s.io/docs/user/known-issues/",
    ),
    (("is not a valid", "unable to decode config", "unknown field"), "correct the kind configuration file"),
)
# kubeadm is run by kind at its most talkative: its notes to itself, and Go's stack below every error.
_NOTE = re.compile(r"I\d{4} \d\d:\d\d:\d\d")
_PLACE = re.compile(r"\t\S+\.(go|s):\d+$")
_PROGRESS = re.compile(r" [•✓✗] ")
_KNOWN_ISSUES = "https://kind.sigs.k8s.io/docs/user/known-issues/ knows most reasons"
_TAKEN_PORT = ("port is already allocated", "address already in use")
_TAKEN_NAME = "already exist for a cluster with the name"


def docker_hint(output: str) -> str:
    """Return what to do when Docker does not answer."""
    return _matching(_DOCKER, output) or "`docker version` must work for this user"


def kind_hint(output: str) -> str:
    """Return what to do when kind failed."""
    return _matching(_KIND, output) or _matching(_DOCKER, output) or _KNOWN_ISSUES


def port_was_taken(output: str) -> bool:
    """Return whether somebody else took the port that a node was to be published at."""
    return any(sign in output for sign in _TAKEN_PORT)


def was_taken(output: str) -> bool:
    """Return whether kind found a cluster of that name."""
    return _TAKEN_NAME in output


def telling(log: str, *, lines: int = 12) -> str:
    """Return the lines of kind's log that tell what went wrong: its own error first, then the last ones said."""
    pairs = pairwise([*log.splitlines(), ""])
    said = [
        line
        for line, below in pairs
        if line.strip() and not (_NOTE.match(line) or _PLACE.match(line) or _PLACE.match(below))
    ]
    errors = [line for line in said if line.startswith("ERROR:")][:1]
    last = [line for line in said if not _PROGRESS.match(line) or not errors][-lines:]
    return "\n".join(dict.fromkeys([*errors, *last])) or "(it printed nothing)"


def _matching(table: tuple[tuple[tuple[str, ...], str], ...], output: str) -> str | None:
    said = output.lower()
    return next((hint for signs, hint in table if any(sign in said for sign in signs)), None)
