from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import ClusterUnreachableError, ConfigError, WaitTimeoutError
from clusterguard.retrying import RetryPolicy, poll_until


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


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now, self.sleeps = 100.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("done", [None, ""])
def test_polling_ends_with_the_first_answer_that_misses_nothing(done):
    clock, answers = Clock(), iter(["one", "two", done])
    poll_until(lambda: next(answers), what="x", seconds=10, every=3, sleep=clock.sleep, clock=clock)
    assert clock.sleeps == [3, 3]


def test_what_is_there_already_is_asked_once_even_without_any_time():
    clock, asked = Clock(), []
    poll_until(lambda: asked.append(1), what="x", seconds=0, sleep=clock.sleep, clock=clock)
    assert (asked, clock.sleeps) == ([1], [])


def test_polling_asks_a_last_time_at_the_deadline_and_then_says_what_it_saw():
    clock, asked = Clock(), []

    def ask():
        asked.append(clock.now - 100)
        return f"at {clock.now - 100:g}"

    with pytest.raises(WaitTimeoutError) as caught:
        poll_until(ask, what="the end", seconds=7, every=3, hint="look", sleep=clock.sleep, clock=clock)
    error = caught.value
    assert asked == [0, 3, 6, 7]
    assert (error.what, error.seconds, error.last_seen, error.hint) == ("the end", 7, "at 7", "look")


def test_a_hint_that_has_to_be_read_first_is_read_only_after_the_deadline():
    clock, logs = Clock(), []
    answers = iter(["not yet", None])
    poll_until(lambda: next(answers), what="x", seconds=5, hint=logs.append, sleep=clock.sleep, clock=clock)
    with pytest.raises(WaitTimeoutError) as caught:
        poll_until(lambda: "no", what="x", seconds=0, hint=lambda: "the log", sleep=clock.sleep, clock=clock)
    assert (logs, caught.value.hint) == ([], "the log")


def test_an_error_of_the_question_ends_the_polling():
    with pytest.raises(ClusterUnreachableError):
        poll_until(Flaky(1), what="x", seconds=5, sleep=lambda _: pytest.fail("it waited"))
