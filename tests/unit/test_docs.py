"""The documentation is true: links lead somewhere, examples load, and nothing public is left out."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import clusterguard
from clusterguard.drills import load_drills
from whole_command_line import whole_command_line

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
_FILE_NAME = re.compile(r"^# ([\w./-]+\.ya?ml)\n")
# Folders that only exist on one machine; a page may name /etc, /opt and the like.
_MACHINE_PATH = re.compile(r"(?<![\w.~…$-])/(?:root|home|work|Users|tmp|mnt)/[\w.-]+")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page, *languages):
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        if match[2].strip() in languages:
            line = text.count("\n", 0, match.start()) + 1
            yield Block(page, line, match[2].strip(), textwrap.dedent(match[3]))


def all_blocks(*languages):
    return [block for page in PAGES for block in blocks_of(page, *languages)]


def prose(page):
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors_in(markdown):
    """Anchors as GitHub makes them from headings: lower case, no punctuation, dashes for spaces."""
    headings = [heading.lower() for heading in _HEADING.findall(_FENCE.sub("", markdown))]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def broken_links(page, markdown):
    for target in _LINK.findall(_FENCE.sub("", markdown)):
        if re.match(r"[a-z]+:", target):
            continue  # another site's; whether it is there is not for a unit test
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield f"{target}: there is no {path}"
        elif anchor and anchor not in anchors_in(markdown if file == page else file.read_text(encoding="utf-8")):
            yield f"{target}: there is no heading for #{anchor}"


# ---- pages ---------------------------------------------------------------------------------------------------


def test_links_lead_somewhere():
    found = {page: list(broken_links(page, page.read_text(encoding="utf-8"))) for page in PAGES}
    assert {page: broken for page, broken in found.items() if broken} == {}


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("[x](nowhere.md)", "nowhere.md"),
        ("[x](#no-such-heading)", "no-such-heading"),
        ("[x](docs/reference/cli.md#no-such-heading)", "no-such-heading"),
    ],
)
def test_broken_links_are_found(link, problem):
    assert [found for found in broken_links(ROOT / "README.md", f"# A heading\n{link}\n") if problem in found]


def test_links_to_headings_and_other_sites_are_fine():
    text = "# A `code` heading: this\n[x](#a-code-heading-this) [y](https://example.com/nowhere) [z](docs/README.md)\n"
    assert list(broken_links(ROOT / "README.md", text)) == []


def test_the_index_has_every_page():
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in _LINK.findall(index.read_text(encoding="utf-8"))}
    assert [page for page in PAGES if "docs" in page.parts and page != index and page not in linked] == []


def test_no_page_names_a_folder_of_one_machine():
    assert [page for page in PAGES if _MACHINE_PATH.search(page.read_text(encoding="utf-8"))] == []


def test_folders_of_one_machine_are_found():
    assert _MACHINE_PATH.search("see /home/somebody/drills")
    assert not _MACHINE_PATH.search("see /etc/kubernetes and …/clusters/home/x and https://example.com/home/x")


# ---- YAML ----------------------------------------------------------------------------------------------------


def written_drills(page, folder):
    """Write the YAML of a page as a reader would, and return the files with drills and the block of each."""
    for number, block in enumerate(blocks_of(page, "yaml")):
        documents = [document for document in yaml.safe_load_all(block.text) if document]
        assert documents, f"{block}: an empty block"
        named = _FILE_NAME.match(block.text)
        file = folder / (named[1] if named else f"block-{number}.drill.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")
        if any(document.get("kind") == "Drill" for document in documents):
            yield file, block


def test_drills_on_a_page_load(tmp_path):
    loaded = 0
    for number, page in enumerate(PAGES):
        folder = tmp_path / str(number)
        shutil.copytree(ROOT / "drills" / "manifests", folder / "manifests")
        for file, block in list(written_drills(page, folder)):
            assert load_drills(file), block
            loaded += 1
    assert loaded >= 3


def test_the_example_of_a_database_asks_it_as_its_page_says():
    page = ROOT / "docs/how-to/prove-databases.md"
    (shown,) = (yaml.safe_load(each.text) for each in blocks_of(page, "yaml") if "postgresql.steps" in each.text)
    example = ROOT / "examples/prove-postgresql.drill.yaml"
    assert load_drills(example, environ={"POSTGRES_IMAGE": "postgres:17"})
    spec = yaml.safe_load(example.read_text(encoding="utf-8"))["spec"]
    asked = {phase: [each["exec"] for each in spec[phase] if "exec" in each] for phase in shown}
    for phase, steps in shown.items():
        assert [each["exec"] for each in steps] == asked[phase][: len(steps)]


# ---- Python --------------------------------------------------------------------------------------------------


def test_python_on_a_page_compiles():
    for block in all_blocks("python", "python run"):
        compile(block.text, str(block), "exec")


@pytest.mark.programs
def test_python_on_a_page_runs(shared_cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        for page in {block.page for block in all_blocks("python run")}:
            names = {"cluster": shared_cluster}
            for block in blocks_of(page, "python run"):
                exec(compile(block.text, str(block), "exec"), names)  # noqa: S102 - our own documentation
    finally:
        api = shared_cluster.api
        namespace = api.resource("Namespace")
        api.delete(namespace, "cafe")
        api.wait_for(
            namespace, "cafe", until=lambda found: found is None, what="namespace cafe goes", timeout_seconds=60
        )


def python_sections():
    parts = re.split(
        r"^### (\w+)$", (ROOT / "docs/reference/python.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def words_to_tell(public):
    """What a page must say of a public name: its parameters, and the public members of a class."""
    words = set()
    is_port = getattr(public, "_is_protocol", False)
    if not is_port and not (inspect.isclass(public) and issubclass(public, (Exception, str))):
        words |= set(inspect.signature(public).parameters)
    if inspect.isclass(public):
        words |= {name for name in vars(public) if not name.startswith("_")}
    return words


def test_every_public_name_is_documented_with_all_it_has():
    sections = python_sections()
    for name in clusterguard.__all__:
        inherited = sections["Cluster"] if name.endswith("Cluster") else ""
        told = set(re.findall(r"\w+", sections[name] + inherited))
        assert words_to_tell(getattr(clusterguard, name)) - told == set(), name


def test_nothing_is_documented_that_is_not_public():
    assert set(python_sections()) == set(clusterguard.__all__)


# ---- the command line and pytest -----------------------------------------------------------------------------


def commands_of(group, prefix=()):
    for name, command in getattr(group, "commands", {}).items():
        path = (*prefix, name)
        yield path, command
        yield from commands_of(command, path)


ROOT_COMMAND = whole_command_line()
COMMANDS = [(path, command) for path, command in commands_of(ROOT_COMMAND) if not hasattr(command, "commands")]


def long_options(command):
    options = (parameter for parameter in command.params if parameter.param_type_name == "option")
    return {name for option in options for name in option.opts if name.startswith("--")}


def cli_page():
    return (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")


def group_section(noun):
    return re.split(rf"^## clusterguard {noun}$", cli_page(), flags=re.MULTILINE)[1].split("\n## ")[0]


def test_every_command_is_documented_with_its_options():
    for path, command in COMMANDS:
        section, words = group_section(path[0]), " ".join(path)
        assert f"### {words}\n" in section, words
        assert f"`clusterguard {words}" in section, words
        assert {option for option in long_options(command) if not re.search(rf"{option}\b", section)} == set(), words


def test_the_options_of_the_program_itself_are_documented():
    assert {option for option in long_options(ROOT_COMMAND) if f"`{option}`" not in cli_page()} == set()


@pytest.mark.parametrize("variable", ["ETCDCTL_PASSWORD", "KUBECONFIG"])
def test_variables_read_without_an_option_are_documented(variable):
    assert variable in cli_page()


def test_every_variable_of_an_option_is_documented():
    variables = {parameter.envvar for _, command in COMMANDS for parameter in command.params if parameter.envvar}
    assert {variable for variable in variables if f"`{variable}`" not in cli_page()} == set()


class _Parser:
    """Stands in for pytest's, and remembers what the plugin adds."""

    def __init__(self):
        self.options, self.ini = set(), set()

    def getgroup(self, *_, **__):
        return self

    def addoption(self, *names, **_):
        self.options |= set(names)

    def addini(self, name, *_, **__):
        self.ini.add(name)


def test_every_option_and_ini_key_of_the_plugin_is_documented():
    from clusterguard import pytest_plugin

    page = (ROOT / "docs/reference/pytest.md").read_text(encoding="utf-8")
    parser = _Parser()
    pytest_plugin.pytest_addoption(parser)
    assert parser.options
    rows = set(re.findall(r"^\| `(--[\w-]+)", page, re.MULTILINE))
    assert parser.options - rows == set()
    assert {key for key in parser.ini if f"`{key}`" not in page} == set()


def test_every_fixture_of_the_plugin_is_documented():
    from clusterguard import pytest_plugin

    page = (ROOT / "docs/reference/pytest.md").read_text(encoding="utf-8")
    assert [name for name in pytest_plugin.__all__ if f"`{name}`" not in page] == []
