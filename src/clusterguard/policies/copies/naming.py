"""The names that runs give to backups, and what they make of them in a location: the one place that knows either."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["backup_of_key", "etcd_name", "velero_name"]


def etcd_name(source: str, *, now: datetime, suffix: str = "") -> str:
    """Return what a snapshot that is taken now is called.

    - ``suffix``: of the run: six hexadecimal digits, where the name without it is taken.
    """
    return f"{source}-{now:%Y%m%dT%H%M%SZ}" + (f"-{suffix}" if suffix else "")


def velero_name(source: str, *, now: datetime, suffix: str) -> str:
    """Return what a Velero backup that is made now is called; a server has one space of names for everybody's.

    - ``suffix``: of the run: six hexadecimal digits.
    """
    return f"{source}-{now:%Y%m%dt%H%M%Sz}-{suffix}"


def backup_of_key(source: str, key: str) -> str | None:
    """Return which backup an object holds bytes of, by its name alone; None for what no run ever writes.

    - ``key``: below the source's folder. A record holds no bytes of a backup.
    """
    match = _ours(source).fullmatch(key)
    return match["etcd"] or match["velero"] if match else None


@cache
def _ours(source: str) -> re.Pattern[str]:
    name = re.escape(source)
    return re.compile(
        rf"(?P<etcd>{name}-\d{{8}}T\d{{6}}Z(-[0-9a-f]{{6}})?)(~[0-9a-f]{{8}})?\.db(\.zst)?(\.age)?"
        rf"|backups/(?P<velero>{name}-\d{{8}}t\d{{6}}z-[0-9a-f]{{6}})/.+"
    )
