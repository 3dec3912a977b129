"""``clusterguard report``: what drills proved, as a page for people."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    evidence: Annotated[
        list[str],
        typer.Argument(
            help="Evidence of drills: bundles, or what holds some: folders, s3://BUCKET/PREFIX.", metavar="DIR…"
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.", metavar="FILE")] = Path("report.html"),
    key: Annotated[
        Path | None, typer.Option(help="The public key that must have signed them, in PEM.", metavar="FILE")
    ] = None,
) -> None:
    """Write a page about the last run of every drill.

    It is one HTML file, in which the runs before it stand beside.
    """
    from clusterguard.documents.pages import write_text
    from clusterguard.evidence.keys import load_verifying_key
    from clusterguard.evidence.page import render_report
    from clusterguard.evidence.report import read_drills
    from clusterguard.terminal import out

    found = read_drills(evidence, key=load_verifying_key(key) if key else None)
    write_text(output, render_report(found, at=datetime.now(UTC)))
    proven = sum(drill.outcome == "PROVEN" for drill in found.drills)
    out.print(f"{output}: {proven} of {len(found.drills)} drills proven", markup=False, soft_wrap=True)
