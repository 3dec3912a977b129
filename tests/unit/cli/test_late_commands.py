"""Starting is quick: what a command needs is imported when it is called, and help says the same as before."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer

from clusterguard.cli.late import Late, late_group
from clusterguard.cli.main import app
from whole_command_line import whole_command_line

LOADED = (
    "import sys; sys.argv[1:] = {}\ntry:\n import clusterguard.__main__ as m; m.main()\nfinally:\n print(*sys.modules)"
)
SLOW = {
    "boto3",
    "botocore",
    "cryptography",
    "kubernetes",
    "orjson",
    "pydantic",
    "pycurl",
    "requests",
    "urllib3",
    "yaml",
}
OURS = {"__main__", "cli", "cli.late", "cli.main", "errors", "lazy_names", "threads"}


def loaded_by(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(list(arguments))], capture_output=True, text=True, check=False
    )
    return set(done.stdout.splitlines()[-1].split())


def ours(modules):
    return {name.removeprefix("clusterguard.") for name in modules if name.startswith("clusterguard.")}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_imports_no_command_and_nothing_slow(option):
    modules = loaded_by(option)
    assert modules & SLOW == set()
    assert ours(modules) <= OURS


def test_the_help_of_one_group_imports_no_other():
    modules = ours(loaded_by("etcd", "--help"))
    assert {name for name in modules if name.startswith("cli.")} == {"cli.late", "cli.main", "cli.etcd", "cli.options"}


def test_looking_into_a_folder_imports_no_cluster_no_cloud_and_nothing_that_reads_files(tmp_path):
    modules = loaded_by("etcd", "list", "--store", str(tmp_path))
    assert modules & SLOW == set()
    assert modules & {"rich.progress", "ssl", "clusterguard.etcd.integrity", "clusterguard.etcd.member"} == set()


def test_a_run_imports_no_cluster_and_no_cloud_before_it_has_read_its_policy(tmp_path):
    modules = loaded_by("run", str(tmp_path / "none.yaml"))
    assert modules & (SLOW - {"orjson", "pydantic", "yaml"}) == set()
    assert ours(modules) & {"clusters.embedded", "clusters.kind", "stores.s3"} == set()


def test_a_run_imports_what_its_policy_asks_for(tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"""
apiVersion: clusterguard.dev/v1alpha1
kind: BackupPolicy
metadata: {{name: nightly}}
spec:
  sources: [{{name: etcd, etcd: {{endpoints: ["http://127.0.0.1:1"]}}}}]
  locations: [{{name: near, url: "file://{tmp_path}/near"}}]
  retention: {{daily: 2}}
""")
    served = {"http.client", "http.server", "urllib.request", "clusterguard.policies.watching.metrics"}
    modules = loaded_by("run", "--step", "retain", str(policy))
    assert modules & (served | {"rich.progress", "clusterguard.clusters.node_shell"}) == set()
    policy.write_text(f"{policy.read_text()}  metrics: {{textfile: {tmp_path}/metrics.prom}}\n")
    assert loaded_by("run", "--step", "retain", str(policy)) >= served - {"http.server"}


def _with_options(
    text: Annotated[str, typer.Argument()],
    more: Annotated[list[str] | None, typer.Argument()] = None,
    note: Annotated[str, typer.Option(envvar="NOTE")] = "none",
    tag: Annotated[list[str] | None, typer.Option(envvar="TAGS")] = None,
    path: Annotated[Path | None, typer.Option()] = None,
    many: Annotated[list[Path] | None, typer.Option()] = None,
    number: int = 3,
    kind: Literal["a", "b"] = "a",
    upper: Annotated[str, typer.Option(parser=str.upper)] = "",
    flag: bool = False,
) -> None:
    typer.echo(repr((text, more, note, tag, path, many, number, kind, upper, flag)))


@pytest.mark.parametrize(
    "words",
    [
        ["x"],
        [],
        ["x", "y", "z"],
        ["", "--note", ""],
        ["x", "--tag", "1", "--tag", "2"],
        ["x", "--path", "a/../b", "--many", "c", "--many", "d"],
        ["x", "--number", "4", "--kind", "b", "--upper", "up", "--flag"],
        ["x", "--number", "four"],
        ["x", "--kind", "c"],
        ["x", "--note"],
        ["--help"],
    ],
)
@pytest.mark.parametrize(
    "environment", [{}, {"NOTE": "env", "TAGS": "3 4"}, {"NOTE": ""}], ids=["bare", "set", "empty"]
)
def test_a_command_that_loads_later_reads_its_words_as_the_library_does(words, environment, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    early = typer.Typer(add_completion=False, rich_markup_mode=None)
    early.command("late")(_with_options)
    later = Late(f"{__name__}:_with_options", "").load("late")

    def answer(command):
        with pytest.raises(SystemExit) as end:
            command.main(words, prog_name="late")
        return end.value.code, capsys.readouterr()

    assert answer(later) == answer(typer.main.get_command(early))


def test_what_loads_later_says_of_itself_what_help_says_of_it():
    early, whole = typer.main.get_command(app).commands, whole_command_line().commands
    assert list(early) == list(whole)
    for name, command in whole.items():
        assert early[name].help == command.help.partition("\n\n")[0].replace("\n", " "), name
        assert type(command) is not type(early[name]) or command.params, f"{name} was not loaded"


def test_completion_knows_commands_that_are_not_loaded():
    def completed(words):
        environment = {**os.environ, "_CLUSTERGUARD_COMPLETE": "complete_bash", "COMP_WORDS": words,
                       "COMP_CWORD": str(len(words.split(" ")) - 1)}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "clusterguard"], env=environment, capture_output=True, text=True, check=False
        )
        return set(done.stdout.split())

    assert {"snapshot", "status", "schedule"} == completed("clusterguard s")
    assert {"list"} == completed("clusterguard etcd l")
    assert "--store" in completed("clusterguard etcd list --s")


def test_a_command_that_does_not_exist_is_answered_by_the_nearest_that_does(cli):
    code, _, err = cli("snapshots")
    assert code == 2
    assert "'snapshot'" in err


def test_a_command_whose_module_is_missing_says_so_when_it_is_called():
    group = typer.main.get_command(typer.Typer(cls=late_group({"gone": Late("clusterguard.gone:gone", "Gone.")}),
                                               callback=lambda: None, add_completion=False))  # fmt: skip
    assert group.get_command(typer.Context(group), "gone").help == "Gone."
    with pytest.raises(ModuleNotFoundError, match=r"clusterguard\.gone"):
        group.resolve_command(typer.Context(group), ["gone"])
