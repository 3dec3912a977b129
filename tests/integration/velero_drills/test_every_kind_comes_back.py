"""Every kind is backed up, lost and brought back again: what is written down about it still holds."""

import pytest
import what_comes_back as observed

import every_kind

# The machine has one Velero server; waiting for other users of it takes longer than any test.
pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def seen(toolchain, tmp_path_factory, velero_lock):
    with velero_lock:
        return observed.observe(toolchain, tmp_path_factory.mktemp("every-kind"))


def test_the_page_tells_what_is_observed_today(seen):
    assert observed.page(seen) == observed.PAGE.read_text(encoding="utf-8")


def test_every_kind_that_this_api_server_stores_is_filled_in(seen):
    filled_in = {ref.full_kind for ref in observed.filled_in(seen)}
    assert {kind for kind in seen.facts["stored"] if not kind.endswith(".velero.io")} == filled_in


@pytest.mark.parametrize("way", observed.WAYS)
def test_what_is_lost_is_told_and_nothing_else(seen, way):
    assert every_kind.verdict(seen, way) == every_kind.expected(way)


def test_a_defect_in_each_object_is_told(seen):
    assert every_kind.unseen_defects(seen) == set()


def test_what_was_observed_once_is_what_is_observed_today(seen):
    stored = observed.Observations.load(observed.CORPUS)
    for key in ("kubernetes", "velero", "stored", "notStored", "outcomes"):
        assert seen.facts[key] == stored.facts[key]
    named = {(ref.full_kind, ref.name) for ref in observed.filled_in(seen)}
    for way in observed.WAYS:
        then, today = (each.inventories[way].objects for each in (stored, seen))
        assert {(ref.full_kind, ref.name) for ref in today} & named == {
            (ref.full_kind, ref.name) for ref in then
        } & named
