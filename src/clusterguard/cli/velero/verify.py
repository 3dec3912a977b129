"""``clusterguard velero verify``: read a backup back from its bucket, and the data of its volumes with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import KubeconfigOption, ScratchOption, opened, with_options
from clusterguard.cli.velero.options import JsonOption, TolerateOption
from clusterguard.cli.velero.output import NO, print_json

if TYPE_CHECKING:
    from clusterguard.model.progress import ProgressSink
    from clusterguard.velero.volume_data import DataCheck

__all__ = ["verify"]


@with_options
def verify(
    name: Annotated[str, typer.Argument(help="The backup's name.")],
    store: Annotated[
        str,
        typer.Option("--store", help="The bucket, at the prefix of the storage location: s3://BUCKET/PREFIX."),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="SHARE",
            help="Read the data of volumes, too, and so much of it byte for byte: 5%, or all.",
        ),
    ] = "",
    repository_password_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the password of the volumes' repositories; by default Velero's own.", metavar="FILE"
        ),
    ] = None,
    cluster: Annotated[
        str,
        typer.Option("--cluster", help="Take that password from Velero's Secret there: context:NAME and the like."),
    ] = "",
    kubeconfig: KubeconfigOption = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="The namespace that Velero works in.", envvar="VELERO_NAMESPACE")
    ] = "velero",
    tolerate: TolerateOption = None,
    scratch: ScratchOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a backup back from its bucket, without a server, and judge it. Exit code 1: it is not intact."""
    from datetime import UTC, datetime

    from clusterguard.stores import open_store
    from clusterguard.terminal import progress_sink
    from clusterguard.velero.bucket import verify_backup
    from clusterguard.velero.bucket_report import BucketPolicy

    with progress_sink() as progress:
        share = _share(data) if data else None
        check = None
        if share is not None:
            password = _password(repository_password_file, cluster, kubeconfig, namespace, progress)
            check = _check(share, password, scratch, progress)
        report = verify_backup(
            open_store(store),
            name,
            now=datetime.now(UTC),
            policy=BucketPolicy(tolerate_rules=frozenset(tolerate or ())),
            volume_data=check,
            progress=progress,
        )
    print_json(report.to_dict()) if as_json else typer.echo(report.to_text())
    if not report.ok:
        raise typer.Exit(NO)


def _share(text: str) -> float:
    from clusterguard.velero.volume_data import parse_share

    try:
        return parse_share(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error


def _check(share: float, password: str, scratch: Path | None, progress: ProgressSink) -> DataCheck:
    from clusterguard.toolchain import from_environment
    from clusterguard.velero.volume_data import DataCheck

    toolchain = from_environment(os.environ, progress=progress)
    return DataCheck(
        program=lambda: toolchain.ensure("kopia")["kopia"], share=share, password=password, scratch=scratch
    )


def _password(file: Path | None, cluster: str, kubeconfig: Path | None, namespace: str, progress: ProgressSink) -> str:
    from clusterguard.velero.repository import DEFAULT_PASSWORD, password_in

    if file is not None:
        from clusterguard.secret_files import read_secret_file

        # Velero takes its own without the newline that editors put at the end.
        return read_secret_file(file, what="the password of the repositories").strip()
    if not cluster:
        return DEFAULT_PASSWORD
    with opened(cluster, kubeconfig=kubeconfig, progress=progress) as target:
        return password_in(target.api, namespace)
