"""What long work says of itself."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from clusterguard.model.progress import Progress, ignore_progress


def test_a_moment_needs_only_its_task():
    moment = Progress(task="building kube-apiserver")
    assert (moment.done, moment.total, moment.unit, moment.finished, moment.note) == (0, None, "steps", False, "")


def test_a_moment_does_not_change():
    with pytest.raises(FrozenInstanceError):
        Progress(task="saving").done = 1


def test_nobody_has_to_listen():
    assert ignore_progress(Progress(task="saving", finished=True)) is None
