"""Starting is quick: what a command needs is imported when it is called, and help says the same as before."""

import os
import subprocess
import sys

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


def test_looking_into_a_folder_imports_no_cluster_and_no_cloud(tmp_path):
    modules = loaded_by("etcd", "list", "--store", str(tmp_path))
    assert modules & (SLOW - {"pydantic"}) == set()  # the command line library's own, for any argument


def test_a_run_imports_no_cluster_and_no_cloud_before_it_has_read_its_policy(tmp_path):
    modules = loaded_by("run", str(tmp_path / "none.yaml"))
    assert modules & (SLOW - {"orjson", "pydantic", "yaml"}) == set()
    assert ours(modules) & {"clusters.embedded", "clusters.kind", "stores.s3"} == set()


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
