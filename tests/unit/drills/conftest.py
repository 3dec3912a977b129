"""Drill files for tests. The examples are not named ``*.drill.yaml``, or the plugin would run them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from clusterguard.drills.load import load_drills
from clusterguard.errors import InvalidDrillError
from mistakes import DRILL as MINIMAL

EXAMPLES = Path(__file__).parent / "examples"


class Found(NamedTuple):
    line: int
    column: int
    message: str


@pytest.fixture
def minimal():
    """A drill as small as one can be, with a little of everything that names can refer to."""
    return MINIMAL


@pytest.fixture
def write(tmp_path):
    """Write a drill file, and return its path."""

    def write(text, name="test.drill.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def load(write):
    """Load the only drill of a text."""

    def load(text, **options):
        (drill,) = load_drills(write(text), **options)
        return drill

    return load


@pytest.fixture
def problems(write):
    """Return what is wrong in a text, each with its place."""

    def problems(text, **options):
        path = write(text)
        with pytest.raises(InvalidDrillError) as caught:
            load_drills(path, **options)
        pattern = rf"^{re.escape(str(path))}:(\d+):(\d+): (.*)$"
        found = re.findall(pattern, str(caught.value), re.MULTILINE)
        return [Found(int(line), int(column), message) for line, column, message in found]

    return problems


@pytest.fixture
def examples(tmp_path):
    """The three examples that the format was made for, under names that can be loaded."""
    directory = tmp_path / "examples"
    shutil.copytree(EXAMPLES, directory)
    return {path.stem: path.rename(path.with_name(f"{path.stem}.drill.yaml")) for path in directory.glob("*.yaml")}
