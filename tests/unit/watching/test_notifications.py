"""People hear of what failed; the address that they hear it by is nowhere to be seen."""

from __future__ import annotations

import json
import logging
import sys
import threading
from email import message_from_string
from email.policy import default

import pytest
from mail_server import closed_port, http_server, smtp_server
from watched import NOW, a_policy, report, step

from clusterguard.errors import ConfigError
from clusterguard.policies.copies.encryption import read_secret
from clusterguard.policies.policy import Notification, Secret
from clusterguard.policies.watching.notifications import message_of, notified_on, notify

# apprise asks for a module that Python 3.13 has no more, and the Pythons before it warn of that.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

TOKEN = "T0PS3CRETT0KEN"
FAILED = report(
    step(source="etcd", backup="b2", detail="revision 7"),
    step("verify", source="etcd", backup="b2", location="near"),
    step("copy", "failed", source="etcd", backup="b2", location="far", detail="the bucket did not answer", hint="look"),
)
GOOD = report(
    step(source="etcd", backup="b2"),
    step("verify", source="etcd", backup="b2", location="near"),
    step("verify", source="etcd", backup="b2", location="far"),
)
WARNED = report(step(source="etcd", backup="b2"), step("metrics", "warning", detail="no gateway"))
RECOVERED = report(*GOOD.steps, recovered=("etcd",))


def told(address, run=FAILED, *, on=("failure",), name="oncall", environ=None, **settings):
    target = Notification(name=name, url_env="ONCALL_URL", on=on)
    policy = a_policy(notifications=(target,))
    return notify(
        policy, run, environ={"ONCALL_URL": address} if environ is None else environ, now=lambda: NOW, **settings
    )


# ---- what is said --------------------------------------------------------------------------------------------


def test_a_failure_says_what_failed_what_to_do_and_what_counts():
    message = message_of(FAILED, copies=2)
    assert message.title == "FAILED: backup policy prod: copy etcd in far"
    assert message.body.splitlines() == [
        "✗ copy etcd/b2 in far: the bucket did not answer",
        "  → look",
        "",
        "! etcd: b2, 1 of 2 verified copies that are wanted",
        "run 20261122T020000Z-abc123, 2026-11-22 02:01 UTC, 90 s",
    ]


def test_a_success_is_short():
    message = message_of(GOOD, copies=2)
    assert message.title == "OK: backup policy prod"
    assert message.body.splitlines()[0] == "✓ etcd: b2, 2 of 2 verified copies that are wanted"


def test_a_warning_says_that_it_counts():
    message = message_of(WARNED, copies=1)
    assert message.title == "Warning: backup policy prod: metrics"
    assert "! metrics: no gateway" in message.body


def test_a_recovery_says_what_works_again():
    message = message_of(RECOVERED, copies=2)
    assert message.title == "Recovered: backup policy prod: etcd backed up again"
    assert "✓ works again: etcd" in message.body


def test_without_a_new_backup_it_says_what_is_still_there():
    message = message_of(report(step("backup", "failed", source="etcd", detail="refused")), copies=1)
    assert "✗ etcd: no new backup; the earlier ones are as they were" in message.body


def test_many_problems_are_counted_and_long_ones_are_cut():
    many = report(*(step("copy", "failed", source=f"s{n}", detail="x" * 5000) for n in range(40)))
    message = message_of(many, copies=1)
    assert message.title.endswith("copy s0 and 39 more")
    assert "… and 30 more" in message.body
    assert len(message.body) < 6000


# ---- who is told when ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "kinds"),
    [
        (FAILED, ("failure",)),
        (WARNED, ("warning",)),
        (GOOD, ("success",)),
        (RECOVERED, ("success", "recovery")),
        (report(*WARNED.steps, recovered=("etcd",)), ("warning", "recovery")),
    ],
)
def test_occasions(run, kinds):
    assert notified_on(run) == kinds


@pytest.mark.parametrize(
    ("run", "on", "heard"),
    [
        (FAILED, ("failure",), True),
        (FAILED, ("success", "recovery"), False),
        (GOOD, ("failure", "warning", "recovery"), False),
        (RECOVERED, ("recovery",), True),
        (RECOVERED, ("success", "recovery"), True),  # and once
        (WARNED, ("failure",), False),
        (WARNED, ("warning",), True),
    ],
)
def test_each_target_hears_of_its_occasions_once(run, on, heard):
    with http_server() as server:
        steps = told(f"json://{server.address}/", run, on=on)
    assert len(server.seen) == len(steps) == int(heard)


# ---- how it gets there ---------------------------------------------------------------------------------------


def test_a_webhook_gets_it():
    with http_server() as server:
        (done,) = told(f"json://{server.address}/hooks/{TOKEN}")
    (post,) = server.seen
    assert post.path.rstrip("/") == f"/hooks/{TOKEN}"
    assert json.loads(post.body)["title"] == "FAILED: backup policy prod: copy etcd in far"
    assert "the bucket did not answer" in json.loads(post.body)["message"]
    assert json.loads(post.body)["type"] == "failure"
    assert (done.verb, done.outcome, done.at, done.detail) == ("notify", "ok", NOW, "oncall was notified")


def test_a_letter_gets_it():
    with smtp_server() as server:
        (done,) = told(f"mailto://{server.address}/?mode=insecure&from=cg@example.com&to=oncall@example.com")
    assert done.outcome == "ok", done
    ((envelope, text),) = server.seen
    assert any("oncall@example.com" in line for line in envelope)
    letter = message_from_string(text, policy=default)
    assert letter["Subject"] == "FAILED: backup policy prod: copy etcd in far"
    body = letter.get_body(("plain", "html")).get_content()
    assert "the bucket did not answer" in body
    assert "→ look" in body


def test_an_address_in_a_file_will_do(tmp_path):
    with http_server() as server:
        (tmp_path / "url").write_text(f"json://{server.address}/\n")
        (tmp_path / "url").chmod(0o600)
        target = Notification(name="oncall", url_file=str(tmp_path / "url"), on=("failure",))
        (done,) = notify(a_policy(notifications=(target,)), FAILED, environ={})
    assert done.outcome == "ok"


def test_an_address_in_a_file_that_others_may_read_is_not_used(tmp_path):
    (tmp_path / "url").write_text("json://127.0.0.1:1/secret\n")
    (tmp_path / "url").chmod(0o644)
    with pytest.raises(ConfigError) as raised:
        read_secret(Secret(file=str(tmp_path / "url")), {}, what="the address")
    assert raised.value.code == "secret-file-mode"
    assert "json://" not in raised.value.message


def test_several_targets_are_told_at_once():
    with http_server() as one, http_server(500) as two:
        targets = tuple(Notification(name=each, url_env=each, on=("failure",)) for each in ("one", "two"))
        environ = {"one": f"json://{one.address}/", "two": f"json://{two.address}/"}
        first, second = notify(a_policy(notifications=targets), FAILED, environ=environ)
    assert (first.outcome, second.outcome) == ("ok", "warning")


# ---- what goes wrong -----------------------------------------------------------------------------------------


class Everything(logging.Handler):
    def __init__(self):
        super().__init__(logging.NOTSET)
        self.text = ""

    def emit(self, record):
        self.text += f"{record.name} {record.getMessage()}\n"


@pytest.fixture
def logged():
    """Everything that anybody logs, at any level."""
    handler, root = Everything(), logging.getLogger()
    names = ["apprise", "urllib3", "urllib3.connectionpool", "requests"]
    levels = {name: logging.getLogger(name).level for name in names} | {"": root.level}
    for name in levels:
        logging.getLogger(name or None).setLevel(1)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)


def assert_hidden(done, logged, capfd):
    printed = capfd.readouterr()
    everything = f"{done!r}{logged.text}{printed.out}{printed.err}"
    assert TOKEN not in everything
    assert "127.0.0.1" not in everything


def test_a_refusal_is_a_warning_with_its_status_and_without_the_address(logged, capfd):
    with http_server(403) as server:
        (done,) = told(f"json://user:{TOKEN}@{server.address}/{TOKEN}")
    assert (done.outcome, done.detail) == (
        "warning",
        "oncall was not notified: its service refused the message (HTTP 403)",
    )
    assert "the variable ONCALL_URL" in done.hint
    assert_hidden(done, logged, capfd)


def test_a_success_tells_no_log_the_address(logged, capfd):
    with http_server() as server:
        (done,) = told(f"json://{server.address}/{TOKEN}")
    assert done.outcome == "ok"
    assert_hidden(done, logged, capfd)


def test_logs_are_heard_again_afterwards(logged):
    with http_server() as server:
        told(f"json://{server.address}/{TOKEN}")
    logging.getLogger("apprise").warning("by somebody else")
    logging.getLogger("urllib3.connectionpool").debug("a bucket")
    assert "by somebody else" in logged.text
    assert "a bucket" in logged.text


def test_a_target_that_is_down_is_a_warning(logged, capfd):
    (done,) = told(f"json://127.0.0.1:{closed_port()}/{TOKEN}")
    assert done.outcome == "warning"
    assert done.detail == "oncall was not notified: its service refused the message or could not be reached"
    assert_hidden(done, logged, capfd)


def test_a_target_that_hangs_holds_up_nobody(logged, capfd):
    with http_server(hang=threading.Event()) as server:  # it never answers, so that this ends is the proof
        (done,) = told(f"json://{server.address}/{TOKEN}", seconds=0.3)
    assert (done.outcome, done.detail) == (
        "warning",
        "oncall was not notified: its service did not answer within 0.3 s",
    )
    assert_hidden(done, logged, capfd)


def test_an_address_of_no_service_is_a_warning(logged, capfd):
    (done,) = told(f"nothing-like-that://{TOKEN}")
    assert done.detail == "oncall was not notified: not an address that apprise knows"
    assert_hidden(done, logged, capfd)


def test_a_plugin_that_fails_is_a_warning_without_its_text(logged, capfd, monkeypatch):
    import apprise

    def broken(*_args, **_settings):
        raise RuntimeError(f"cannot send to https://127.0.0.1/{TOKEN}")

    monkeypatch.setattr(apprise.Apprise, "notify", broken)
    (done,) = told(f"json://127.0.0.1/{TOKEN}")
    assert done.detail == "oncall was not notified: its plugin failed with RuntimeError"
    assert_hidden(done, logged, capfd)


def test_an_address_that_is_not_there_is_a_warning():
    (done,) = told("", environ={})
    assert done.detail == "oncall was not notified: the address should be in the variable ONCALL_URL, which is not set"


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigError) as raised:
        told("json://127.0.0.1/")
    assert raised.value.hint == "pip install 'clusterguard[policy]'"


def test_with_nobody_to_tell_the_library_is_not_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert notify(a_policy(), FAILED, environ={}) == ()
