"""A policy's status as one HTML file; see `clusterguard.documents.pages`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterguard.documents.pages import page_environment, write_text
from clusterguard.policies.watching.verdict import DAY_WORDS, age_in_words, size_in_words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from pathlib import Path

    from clusterguard.policies.watching.verdict import DayStatus, PolicyStatus

__all__ = ["render_page", "write_page"]


def render_page(*statuses: PolicyStatus, more: Sequence[str] = ()) -> str:
    """Return the page of one or more policies.

    Args:
        statuses: What is known of each.
        more: What else the page says below them: HTML, in which every text is escaped.
    """
    template = _environment().get_template("status.html.j2")
    page: str = template.render(statuses=statuses, day_words=DAY_WORDS, more=more)
    return page


def write_page(path: Path | str, *statuses: PolicyStatus, more: Sequence[str] = ()) -> None:
    """Write the page in the place of an earlier one; atomically."""
    write_text(path, render_page(*statuses, more=more))


def _environment() -> Any:  # noqa: ANN401 - the library's own
    environment = page_environment("clusterguard.policies.watching")
    environment.filters |= {
        "age": age_in_words,
        "ago": _ago,
        "size": lambda size: "-" if size is None else size_in_words(size),
        "day": _day,
    }
    return environment


def _ago(age: timedelta | None) -> str:
    words = age_in_words(age)
    return words if age is None else f"{words} ago"


def _day(day: DayStatus) -> str:
    what = DAY_WORDS[day.state]
    if not day.backups:
        return f"{day.day:%a %d %b}: {what}"
    backups = "1 backup" if day.backups == 1 else f"{day.backups} backups"
    copies = "1 verified copy" if day.copies == 1 else f"{day.copies} verified copies"
    return f"{day.day:%a %d %b}: {what}, {backups}, {copies}"
