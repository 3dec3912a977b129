"""``clusterguard metrics``: the status of policies, served to a Prometheus."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import read_policy

if TYPE_CHECKING:
    from types import FrameType

    from clusterguard.evidence.history import LatestRun
    from clusterguard.policies.watching.verdict import PolicyStatus

__all__ = ["metrics"]


def metrics(
    policy: Annotated[list[Path] | None, typer.Argument(help="Policy files.", metavar="POLICY…")] = None,
    evidence: Annotated[
        str,
        typer.Option(
            help="Of the drills whose evidence is kept here, too: a folder, or s3://BUCKET/PREFIX.", metavar="DIR"
        ),
    ] = "",
    listen: Annotated[str, typer.Option(help="Address and port.")] = "127.0.0.1:9188",
    within: Annotated[float, typer.Option(help="Seconds that locations get to answer in.", min=0.1)] = 8,
    cache: Annotated[float, typer.Option(help="Seconds for which an answer is given again.", min=0)] = 5,
) -> None:
    """Serve Prometheus metrics at /metrics until it is interrupted.

    Each scrape looks at the locations.
    """
    from clusterguard.errors import ConfigError
    from clusterguard.evidence.bundle import evidence_store
    from clusterguard.evidence.history import latest_runs
    from clusterguard.policies.copies.locations import open_locations
    from clusterguard.policies.watching.metrics import serve
    from clusterguard.policies.watching.watch import PolicyWatch
    from clusterguard.terminal import err

    if not policy and not evidence:
        raise ConfigError("there is nothing to serve metrics of", hint="name policies, or --evidence DIR")
    policies = [read_policy(file) for file in policy or ()]
    drills = evidence_store(evidence) if evidence else None
    # One for each policy, for as long as we serve: it remembers which locations still owe an answer.
    watches = [PolicyWatch(each, open_locations(each), within_seconds=within) for each in policies]
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)

    def collect() -> list[PolicyStatus | LatestRun]:
        return [*(watch.status() for watch in watches), *(latest_runs(drills) if drills else ())]

    with serve(listen, collect, cache_seconds=cache) as url:
        err.print(f"serving {url}", markup=False, soft_wrap=True)
        ended.wait()
