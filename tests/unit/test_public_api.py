"""What the package promises: its names, their words, and that importing it costs nothing."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest

import clusterguard

HEAVY = {
    "boto3",
    "botocore",
    "cryptography",
    "etcd3gw",
    "filelock",
    "google_crc32c",
    "kubernetes",
    "orjson",
    "psutil",
    "pycurl",
    "pydantic",
    "requests",
    "rich",
    "tenacity",
    "typer",
    "urllib3",
    "yaml",
}


def loaded_by(code):
    """Return the top-level modules that a fresh interpreter has loaded after running ``code``."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def own_members(kind):
    """Yield the public functions and properties that a class defines itself."""
    for name, member in vars(kind).items():
        if not name.startswith("_") and isinstance(member, (staticmethod, classmethod, property)):
            yield name, member.fget if isinstance(member, property) else member.__func__
        elif not name.startswith("_") and inspect.isfunction(member):
            yield name, member


@pytest.mark.parametrize(
    "code",
    ["import clusterguard", "import clusterguard.errors", "import clusterguard.clusters", "import clusterguard.etcd"],
)
def test_importing_the_package_loads_no_sdk(code):
    assert not loaded_by(code) & HEAVY


def test_importing_the_plugin_loads_nothing_that_pytest_does_not():
    assert not (loaded_by("import clusterguard.pytest_plugin") - loaded_by("import pytest")) & HEAVY


def test_the_check_would_notice():
    assert loaded_by("from clusterguard import EtcdSnapshotter; import clusterguard.etcd.member") & HEAVY >= {"pycurl"}


def test_every_promised_name_is_there():
    assert [getattr(clusterguard, name).__name__ for name in clusterguard.__all__] == clusterguard.__all__


def test_promised_and_found_names_are_the_same():
    assert list(clusterguard.__all__) == sorted(set(clusterguard.__all__))
    assert set(dir(clusterguard)) == {*clusterguard.__all__, "__version__"}


def test_any_other_name_is_told_as_python_does():
    with pytest.raises(AttributeError, match="module 'clusterguard' has no attribute 'Nonsense'"):
        clusterguard.Nonsense  # noqa: B018 - looking is the test


def test_the_version_is_that_of_the_distribution():
    assert clusterguard.__version__.count(".") == 2


def test_everything_public_is_described():
    described = {name: getattr(clusterguard, name) for name in clusterguard.__all__}
    for name, value in list(described.items()):
        if inspect.isclass(value):
            described |= {f"{name}.{member}": function for member, function in own_members(value)}
    assert [what for what, each in described.items() if not inspect.getdoc(each)] == []


def own_classes():
    """Return the classes that users make objects of."""
    values = [getattr(clusterguard, name) for name in clusterguard.__all__]
    classes = [value for value in values if inspect.isclass(value) and not getattr(value, "_is_protocol", False)]
    return [kind for kind in classes if not issubclass(kind, (Exception, str))]


def test_public_values_cannot_be_changed():
    kinds = [kind for kind in own_classes() if dataclasses.is_dataclass(kind)]
    assert [kind for kind in kinds if not (kind.__dataclass_params__.frozen and "__slots__" in vars(kind))] == []


def test_public_calls_name_their_arguments():
    unnamed = [
        (kind.__name__, parameter.name)
        for kind in own_classes()
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is parameter.empty
    ]
    assert unnamed == []
