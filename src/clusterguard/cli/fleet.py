"""``clusterguard fleet``: the same drills in many clusters, by hand or as one Job of Kubernetes, and one report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import AllowContextOption, require_duration

if TYPE_CHECKING:
    from rich.table import Table

    from clusterguard.policies.fleet.files import Fleet
    from clusterguard.policies.fleet.results import FleetReport

__all__ = ["app"]

_EXIT_CODES = {"PROVEN": 0, "NOT PROVEN": 1}
_COULD_NOT_TELL = 2
_STYLES = {"PROVEN": "green", "NOT PROVEN": "red"}

app = typer.Typer(name="fleet", help="Fleets: the drills of many clusters, and one report.", no_args_is_help=True)

_File = Annotated[Path, typer.Argument(help="The fleet file.", metavar="FLEET")]
_Results = Annotated[
    str,
    typer.Option(
        "--results",
        help="Where results are kept: a folder, or s3://BUCKET/PREFIX.",
        envvar="CLUSTERGUARD_FLEET_RESULTS",
    ),
]
_SOME_RUN = typer.Option("--run", help="Name of the run that this is a part of.", envvar="CLUSTERGUARD_FLEET_RUN")


@app.command()
def run(
    file: _File,
    results: _Results,
    run: Annotated[str, _SOME_RUN],
    index: Annotated[
        int, typer.Option(help="Which cluster, from 0; a pod of an Indexed Job knows.", envvar="JOB_COMPLETION_INDEX")
    ],
    allow_context: AllowContextOption = None,
) -> None:
    """Run the drills of one cluster and keep the result. Exit codes as of `drill run`."""
    from clusterguard.policies.fleet.files import load_fleet, run_cluster
    from clusterguard.policies.fleet.results import save_result
    from clusterguard.stores import open_store
    from clusterguard.terminal import out
    from clusterguard.terminal.drill_view import DrillView

    fleet, store = load_fleet(file), open_store(results)
    result = run_cluster(
        fleet,
        index,
        run=run,
        environ=os.environ,
        allowed_contexts=allow_context or (),
        on_event=lambda: DrillView(out),
    )
    save_result(store, result)
    out.print(f"{result.cluster}: {result.outcome}", style=_STYLES.get(result.outcome, "yellow"), markup=False)
    for reason in filter(None, (result.error, *result.not_run.values())):
        out.print(f"  {reason}", markup=False, soft_wrap=True)
    raise typer.Exit(_EXIT_CODES.get(result.outcome, _COULD_NOT_TELL))


@app.command()
def report(
    file: _File,
    results: _Results,
    run: Annotated[
        str, typer.Option("--run", help="The run; by default the latest one.", envvar="CLUSTERGUARD_FLEET_RUN")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what became of every cluster. Exit code 0: all proven; 1: one is not; 2: of one nothing is known."""
    import json

    from clusterguard.policies.fleet.files import load_fleet
    from clusterguard.policies.fleet.results import latest_run, read_report
    from clusterguard.stores import open_store
    from clusterguard.terminal import out

    fleet, store = load_fleet(file), open_store(results)
    found = read_report(store, fleet, run=run or latest_run(store, fleet))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        out.print(_table(found))
    raise typer.Exit(found.exit_code)


@app.command()
def job(
    file: _File,
    results: _Results,
    image: Annotated[
        str, typer.Option(help="Image of clusterguard, with the programs that the drills need.")
    ] = "clusterguard:latest",
    namespace: Annotated[str, typer.Option(help="Namespace of the Job; it must be there.")] = "clusterguard",
    parallelism: Annotated[int, typer.Option(min=1, help="How many clusters at a time.")] = 5,
    attempts: Annotated[int, typer.Option(min=0, help="How often a cluster without a verdict is tried again.")] = 1,
    longest: Annotated[str, typer.Option(help="How long one cluster's drills may take.", metavar="DURATION")] = "2h",
    schedule: Annotated[str, typer.Option(help="Print a CronJob with this schedule, in five fields.")] = "",
    time_zone: Annotated[str, typer.Option(help="Time zone of the schedule, such as Europe/Berlin.")] = "UTC",
    allow_context: AllowContextOption = None,
    kubeconfigs: Annotated[
        str, typer.Option(help="Secret with the kubeconfigs, each under its file's name.")
    ] = "clusterguard-secrets",
    credentials: Annotated[
        str, typer.Option(help="Secret with `credentials` for the results; empty where pods need none.")
    ] = "clusterguard-writer",
) -> None:
    """Print an Indexed Job that runs every cluster in a pod of its own: `kubectl create -f -` takes it."""
    import yaml

    from clusterguard.policies.fleet.files import load_fleet
    from clusterguard.policies.fleet.job import FleetJobOptions, fleet_manifests

    options = FleetJobOptions(
        results=results,
        image=image,
        namespace=namespace,
        parallelism=parallelism,
        attempts=attempts,
        longest=require_duration(longest, "--longest"),
        schedule=schedule,
        time_zone=time_zone,
        allowed_contexts=tuple(allow_context or ()),
        secrets=kubeconfigs,
        writer_secret=credentials,
    )
    manifests = fleet_manifests(load_fleet(file), options=options)
    typer.echo(yaml.safe_dump_all(manifests, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def check(file: _File) -> None:
    """Read a fleet and the drills of each cluster, and print which index is which cluster."""
    from clusterguard.policies.fleet.files import load_fleet
    from clusterguard.terminal import out

    fleet: Fleet = load_fleet(file)
    for index, cluster in enumerate(fleet.clusters):
        drills = fleet.load_drills(cluster, os.environ)
        names = ", ".join(drill.id for drill in drills)
        out.print(f"{index}  {cluster.name} ({cluster.cluster}): {names}", markup=False, soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of fleet files, for editors."""
    from clusterguard.policies.fleet.files import fleet_schema_text

    typer.echo(fleet_schema_text(), nl=False)


def _table(report: FleetReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    from clusterguard.model.durations import format_duration

    table = Table(title=f"{report.fleet}, run {report.run}", title_justify="left")
    for column in ("cluster", "outcome", "recovery", "data lost", "why"):
        table.add_column(column, overflow="fold")
    for each in report.clusters:
        table.add_row(
            Text(each.cluster),
            Text(each.outcome, style=_STYLES.get(each.outcome, "yellow")),
            "" if each.rto is None else format_duration(each.rto),
            "" if each.rpo is None else format_duration(each.rpo),
            Text(each.detail),
        )
    return table
