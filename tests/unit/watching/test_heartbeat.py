"""The dead man's switch hears of every run, and its address is nowhere to be seen."""

from __future__ import annotations

import logging

import pytest
from mail_server import closed_port, http_server
from watched import NOW

from clusterguard.policies.policy import Heartbeat
from clusterguard.policies.watching.heartbeat import beat
from clusterguard.retrying import RetryPolicy
from endless_server import endless_server

TOKEN = "5f8c3b2e-0d1a"
AT_ONCE = RetryPolicy(attempts=3, first_wait_seconds=0, sleep=lambda _seconds: None)


def beaten(address, moment="success", **settings):
    heartbeat = Heartbeat(url_env="BEAT")
    return beat(heartbeat, moment, environ={"BEAT": address}, retries=AT_ONCE, now=lambda: NOW, **settings)


@pytest.mark.parametrize(("moment", "suffix"), [("start", "/start"), ("success", ""), ("failure", "/fail")])
def test_each_moment_has_its_path(moment, suffix):
    with http_server() as server:
        done = beaten(f"http://{server.address}/{TOKEN}/", moment, body="2 of 2 copies\n")
    (post,) = server.seen
    assert (post.method, post.path, post.body) == ("POST", f"/{TOKEN}{suffix}", b"2 of 2 copies\n")
    assert (done.verb, done.outcome, done.at, done.detail) == ("heartbeat", "ok", NOW, moment)


def test_what_the_address_asks_for_stays_behind_the_path():
    with http_server() as server:
        beaten(f"http://{server.address}/{TOKEN}?create=1", "failure")
    assert server.seen[0].path == f"/{TOKEN}/fail?create=1"


def test_a_long_text_is_cut():
    with http_server() as server:
        beaten(f"http://{server.address}/{TOKEN}", body="ä" * 20_000)
    assert len(server.seen[0].body) == 10_000


def test_a_service_that_stumbles_is_asked_again():
    with http_server(503, 500, 200) as server:
        done = beaten(f"http://{server.address}/{TOKEN}")
    assert (done.outcome, len(server.seen)) == ("ok", 3)


def test_a_service_that_does_not_know_us_is_asked_once():
    with http_server(404) as server:
        done = beaten(f"http://{server.address}/{TOKEN}")
    assert len(server.seen) == 1
    assert (done.outcome, done.detail) == (
        "warning",
        "the heartbeat's service did not receive the success ping: it answered 404",
    )
    assert "the variable BEAT" in done.hint


def test_a_service_that_is_down_is_a_warning_without_its_address(caplog):
    caplog.set_level(logging.DEBUG)
    done = beaten(f"http://127.0.0.1:{closed_port()}/{TOKEN}", "start")
    assert done.outcome == "warning"
    assert done.detail == "the heartbeat's service did not receive the start ping: no connection to it"
    assert TOKEN not in f"{done!r}{caplog.text}"


def test_no_log_has_the_address(caplog):
    caplog.set_level(logging.DEBUG)
    with http_server() as server:
        beaten(f"http://{server.address}/{TOKEN}")
    assert TOKEN not in caplog.text


def test_an_address_that_is_none_is_a_warning():
    done = beaten(f"ftp://{TOKEN}")
    assert done.outcome == "warning"
    assert "the variable BEAT holds no http or https address" in done.detail
    assert TOKEN not in f"{done!r}"


def test_an_address_that_is_not_there_is_a_warning(tmp_path):
    done = beat(Heartbeat(url_file=str(tmp_path / "none")), "success", environ={}, retries=AT_ONCE)
    assert done.outcome == "warning"
    assert "No such file" in done.detail


@pytest.mark.parametrize("piece", [b"t", b"x" * 65_536], ids=["trickling", "pouring"])
def test_an_answer_that_does_not_end_is_heard_by_its_status(piece):
    with endless_server(piece=piece, pause=0.01) as address:
        assert beaten(f"{address}/{TOKEN}").outcome == "ok"
    with endless_server(status=404, piece=piece, pause=0.01) as address:
        assert beaten(f"{address}/{TOKEN}").outcome == "warning"


def test_a_redirect_is_followed_and_its_text_not_read():
    with endless_server(status=307, headers=[("Location", "/end")]) as address:
        assert beaten(f"{address}/{TOKEN}").outcome == "ok"


def test_a_redirect_in_a_circle_is_a_warning():
    with endless_server(status=307, headers=[("Location", "/again")]) as address:
        assert beaten(f"{address}/{TOKEN}").outcome == "warning"
