"""``clusterguard metrics``: the status of policies, served to a Prometheus."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import PolicyArguments, read_policy

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["metrics"]


def metrics(
    policy: PolicyArguments,
    listen: Annotated[str, typer.Option(help="Address and port.")] = "127.0.0.1:9188",
    within: Annotated[float, typer.Option(help="Seconds that locations get to answer in.", min=0.1)] = 8,
    cache: Annotated[float, typer.Option(help="Seconds for which an answer is given again.", min=0)] = 5,
) -> None:
    """Serve Prometheus metrics at /metrics until it is interrupted. Each scrape looks at the locations."""
    from clusterguard.policies.copies.locations import open_locations
    from clusterguard.policies.watching.metrics import serve
    from clusterguard.policies.watching.watch import PolicyWatch
    from clusterguard.terminal import err

    policies = [read_policy(file) for file in policy]
    # One for each policy, for as long as we serve: it remembers which locations still owe an answer.
    watches = [PolicyWatch(each, open_locations(each), within_seconds=within) for each in policies]
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    with serve(listen, lambda: [watch.status() for watch in watches], cache_seconds=cache) as url:
        err.print(f"serving {url}", markup=False, soft_wrap=True)
        ended.wait()
