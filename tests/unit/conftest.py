"""What unit tests of several kinds share."""

from __future__ import annotations

import random
import resource
from contextlib import contextmanager

import pytest


@pytest.fixture
def largest_file():
    """Give a real limit of the kernel's: a write beyond it fails with EFBIG, as on a full disk with ENOSPC."""

    @contextmanager
    def largest_file(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return largest_file


@pytest.fixture
def moments(request):
    """Give random moments to kill at; a test that fails shows their seed."""
    seed = random.randrange(1 << 32)  # noqa: S311
    request.node.add_report_section("call", "seed", str(seed))
    return random.Random(seed)  # noqa: S311
