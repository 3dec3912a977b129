"""A policy's status as one HTML file: no script, nothing loaded from elsewhere, for screens light and dark, and paper.

Every text in it is escaped: names and errors come from files and servers, and some of them mean harm.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clusterguard.errors import ClusterGuardError, ConfigError
from clusterguard.model.durations import format_duration
from clusterguard.policies.watching.verdict import DAY_WORDS, age_in_words, size_in_words
from clusterguard.scratch import replacing

if TYPE_CHECKING:
    from datetime import timedelta

    from clusterguard.policies.watching.verdict import DayStatus, PolicyStatus

__all__ = ["render_page", "write_page"]

_MODE: Final = 0o644


def render_page(*statuses: PolicyStatus) -> str:
    """Return the page of one or more policies."""
    template = _environment().get_template("status.html.j2")
    page: str = template.render(statuses=statuses, day_words=DAY_WORDS)
    return page


def write_page(path: Path | str, *statuses: PolicyStatus) -> None:
    """Write the page in the place of an earlier one; atomically."""
    target = Path(path).expanduser()
    page = render_page(*statuses)
    try:
        with replacing(target, mode=_MODE) as file:
            file.write(page.encode())
    except OSError as error:
        raise ClusterGuardError(
            f"{target}: {error.strerror}", hint=f"let this user write in {target.parent}"
        ) from error


def _environment() -> Any:  # noqa: ANN401 - imported late, for those who have not installed it
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError("the status page needs jinja2", hint="pip install 'clusterguard[policy]'") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clusterguard.policies.watching", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "age": age_in_words,
        "ago": _ago,
        "size": lambda size: "-" if size is None else size_in_words(size),
        "duration": lambda seconds: "-" if seconds is None else format_duration(seconds),
        "moment": lambda moment: "never" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC",
        "day": _day,
        "slug": lambda verdict: verdict.replace(" ", "-"),
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
