"""What `benchmarks/scale.py` calls linear and flat."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from sys import modules

import pytest


@pytest.fixture(scope="module")
def scale():
    spec = spec_from_file_location("scale", Path(__file__).parents[2] / "benchmarks" / "scale.py")
    module = modules[spec.name] = module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del modules[spec.name]


def test_a_fixed_cost_and_a_slope_are_found_again(scale):
    line = scale.fit({size: 2 + 0.005 * size for size in (10, 100, 800, 4000)})

    assert (line.fixed, line.slope, line.off) == pytest.approx((2, 0.005, 0))
    assert line.linear


def test_a_slow_run_of_the_largest_size_does_not_decide_what_a_small_one_costs(scale):
    line = scale.fit({10: 1.1, 100: 2.0, 800: 9.0, 4000: 49.2})  # the last is a fifth too much

    assert line.fixed + line.slope * 10 == pytest.approx(1.1, rel=0.1)


@pytest.mark.parametrize("power", [0.5, 1.5, 2])
def test_what_grows_otherwise_than_the_size_is_not_linear(scale, power):
    assert not scale.fit({size: size**power for size in (10, 100, 800, 4000)}).linear


@pytest.mark.parametrize(("largest", "expected"), [(75, True), (76, False)])
def test_memory_is_flat_up_to_a_quarter_more_than_the_second_size_takes(scale, largest, expected):
    assert scale.flat({10: 35, 100: 60, 4000: largest}) is expected


def test_each_size_counts_by_its_median(scale):
    runs = [
        scale.Figure(operation="save", size=10, seconds=seconds, processor=1, others=0, mib=50, load=9)
        for seconds in (1, 2, 60)
    ]

    assert scale.medians(runs, "seconds") == {"save": {10: 2}}
