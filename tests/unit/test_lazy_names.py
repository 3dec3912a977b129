"""Names of packages that are loaded when they are first used; their stubs list them."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import clusterguard
from clusterguard.lazy_names import lazy_names

STUBS = sorted(Path(clusterguard.__file__).parent.rglob("*.pyi"))


def test_every_name_of_every_stub_is_there():
    root = Path(clusterguard.__file__).parents[1]
    packages = [import_module(".".join(stub.parent.relative_to(root).parts)) for stub in STUBS]
    assert [package.__name__ for package in packages if not package.__all__] == []
    for package in packages:
        for name in package.__all__:
            assert getattr(package, name) is not None
        assert set(package.__all__) <= set(dir(package))


@pytest.fixture
def package(tmp_path):
    (tmp_path / "__init__.pyi").write_text("from json import dumps as dumps\nfrom os.path import join as join\n")
    return lazy_names("some.package", str(tmp_path / "__init__.py"))


def test_a_name_is_what_its_module_has_and_any_other_is_refused_as_python_does(package):
    attribute, names = package
    assert attribute("dumps")([1]) == "[1]"
    assert (names(), attribute("__all__")) == (["dumps", "join"],) * 2
    with pytest.raises(AttributeError, match=r"module 'some\.package' has no attribute 'loads'"):
        attribute("loads")


def test_a_star_import_brings_every_name():
    code = "from clusterguard.velero import *; print(VeleroClient.__name__, Rule.__name__)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["VeleroClient", "Rule"]
