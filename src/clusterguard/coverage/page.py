"""Coverage as a part of the status page; see `clusterguard.documents.pages`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterguard.coverage.takes import Reason
from clusterguard.coverage.volumes import NoData
from clusterguard.documents.pages import page_environment
from clusterguard.policies.watching.verdict import age_in_words

if TYPE_CHECKING:
    from datetime import datetime

    from clusterguard.coverage.recorded import RecordedCoverage

__all__ = ["render_coverage"]

_MOST: Final = 200  # rows of one table
_WORDS: Final = {each.value: each.words for each in (*Reason, *NoData)}


def render_coverage(coverage: RecordedCoverage, *, now: datetime) -> str:
    """Return what the page says of a cluster, as HTML for `render_page`; all ages count to `now`."""
    environment = page_environment("clusterguard.coverage")
    environment.filters |= {"age": age_in_words, "reason": lambda code: _WORDS.get(code, code)}
    text: str = environment.get_template("coverage.html.j2").render(coverage=coverage, now=now, most=_MOST)
    return text
