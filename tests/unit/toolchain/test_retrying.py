from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import ClusterUnreachableError, ConfigError
from clusterguard.retrying import RetryPolicy


class Flaky:
    """Fails so many times, then answers."""

    def __init__(self, failures, error=ClusterUnreachableError):
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"attempt {self.calls}")
        return "answer"


@given(failures=st.integers(0, 6), attempts=st.integers(1, 5))
def test_it_succeeds_when_fewer_attempts_fail_than_are_allowed(failures, attempts):
    action, waits = Flaky(failures), []
    policy = RetryPolicy(attempts=attempts, sleep=waits.append)
    if failures < attempts:
        assert policy.run(action) == "answer"
        assert action.calls == failures + 1
    else:
        with pytest.raises(ClusterUnreachableError, match=f"attempt {attempts}"):
            policy.run(action)
    assert len(waits) == action.calls - 1


def test_errors_that_trying_again_does_not_help_are_raised_at_once():
    action = Flaky(1, ConfigError)
    with pytest.raises(ConfigError):
        RetryPolicy(sleep=lambda _: pytest.fail("it waited")).run(action)
    assert action.calls == 1


def test_waits_grow_up_to_the_limit():
    waits = []
    policy = RetryPolicy(attempts=8, first_wait_seconds=1, longest_wait_seconds=8, sleep=waits.append)
    policy.run(Flaky(7))
    for wait, base in zip(waits, [1, 2, 4, 8, 8, 8, 8], strict=True):
        assert base <= wait <= base + 1
