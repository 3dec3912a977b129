"""Policy files for tests."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from clusterguard.errors import InvalidPolicyError
from clusterguard.policies.files.load import load_policy
from mistakes import POLICY as MINIMAL


class Found(NamedTuple):
    line: int
    column: int
    message: str


@pytest.fixture
def minimal():
    """A policy with a little of everything that can be wrong."""
    return MINIMAL


@pytest.fixture
def write(tmp_path):
    """Write a policy file, and return its path."""

    def write(text, name="policy.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def load(write):
    """Load a text."""

    def load(text, **environ):
        return load_policy(write(text), environ=environ)

    return load


@pytest.fixture
def refused(write):
    """Return the error that a text is refused with."""

    def refused(text, **environ):
        with pytest.raises(InvalidPolicyError) as caught:
            load_policy(write(text), environ=environ)
        return caught.value

    return refused


@pytest.fixture
def problems(write, refused, tmp_path):
    """Return what is wrong in a text, each with its place."""

    def problems(text, **environ):
        message = refused(text, **environ).message
        pattern = rf"^{re.escape(str(tmp_path / 'policy.yaml'))}:(\d+):(\d+): (.*)$"
        return [
            Found(int(line), int(column), said) for line, column, said in re.findall(pattern, message, re.MULTILINE)
        ]

    return problems
