"""Metrics: what they say, and that they get to where they are read, whole."""

from __future__ import annotations

import base64
import os
import re
import shutil
import socketserver
import subprocess
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client.parser import text_string_to_metric_families
from watched import DUE, NOW, a_policy, all_well, catalog, nightly, status

from clusterguard.errors import ClusterGuardError, ConfigError, StoreUnavailableError
from clusterguard.evidence.history import LatestRun
from clusterguard.policies.copies.catalog import Leftover
from clusterguard.policies.policy import Metrics
from clusterguard.policies.watching import metrics
from clusterguard.policies.watching.metrics import METRICS, publish, push, render, serve, write_textfile
from endless_server import endless_server

DOWN = StoreUnavailableError("no answer")


def samples(text):
    families = text_string_to_metric_families(text.decode())
    return {(each.name, *sorted(each.labels.items())): each.value for family in families for each in family.samples}


def value(text, name, **labels):
    return samples(text)[(f"clusterguard_{name}", *sorted({"policy": "prod", **labels}.items()))]


def names(text):
    return {name for name, *_ in samples(text)}


# ---- what they say -------------------------------------------------------------------------------------------


def test_a_source_in_numbers():
    text = render(status())
    source = {"source": "etcd"}
    assert value(text, "last_success_timestamp_seconds", **source) == (DUE.timestamp() + 120)
    assert value(text, "last_backup_timestamp_seconds", **source) == DUE.timestamp()
    assert value(text, "last_run_outcome", outcome="ok", **source) == 1
    assert value(text, "last_run_outcome", outcome="failed", **source) == 0
    assert value(text, "backup_duration_seconds", **source) == 12.5
    assert value(text, "backup_bytes", **source) == 1000
    assert value(text, "backups", **source) == 30
    assert value(text, "verified_copies", **source) == value(text, "required_copies", **source) == 2
    assert value(text, "next_due_timestamp_seconds", **source) == DUE.timestamp() + 86400
    assert value(text, "overdue", **source) == 0


def test_a_location_and_a_proof_in_numbers():
    text = render(status())
    assert value(text, "location_up", location="near") == 1
    assert value(text, "location_bytes", location="near") == 30_000
    assert value(text, "location_backups", location="near") == 30
    proof = {"source": "etcd", "proof": "weekly"}
    assert value(text, "proof_rto_seconds", **proof) == 93
    assert value(text, "proof_rpo_seconds", **proof) == 3600
    assert value(text, "proof_overdue", **proof) == 0
    assert value(text, "proof_last_outcome", outcome="proven", **proof) == 1


def test_the_verdict_is_one_of_three():
    text = render(status({**all_well(), "far": DOWN}))
    verdicts = [value(text, "protection", verdict=each) for each in ("protected", "at risk", "not protected")]
    assert verdicts == [0, 1, 0]
    assert value(text, "status_timestamp_seconds") == NOW.timestamp()


def test_what_never_was_is_at_time_zero_so_that_it_is_too_long_ago():
    text = render(status({name: catalog(name, runs=(), proofs=(), updated=None) for name in ("near", "far")}))
    assert value(text, "last_success_timestamp_seconds", source="etcd") == 0
    assert value(text, "last_run_timestamp_seconds", source="etcd") == 0
    assert value(text, "proof_last_proven_timestamp_seconds", source="etcd", proof="weekly") == 0
    assert value(text, "overdue", source="etcd") == 1
    assert "clusterguard_backup_bytes" not in names(text)
    assert "clusterguard_proof_rto_seconds" not in names(text)


def test_what_cannot_be_known_of_a_location_that_is_down_is_left_out():
    text = render(status({**all_well(), "far": DOWN}))
    assert value(text, "location_up", location="far") == 0
    told = {name for name, *labels in samples(text) if ("location", "far") in labels}
    assert told == {"clusterguard_location_up"}


def test_copies_that_could_not_be_read_are_no_damaged_ones():
    text = render(status({**all_well(), "far": catalog("far", *nightly(unread="503"))}))
    assert (value(text, "location_unread", location="far"), value(text, "location_damaged", location="far")) == (30, 0)


def test_what_broke_off_is_counted_in_bytes():
    half = Leftover(source="etcd", name="etcd-20261120T020000Z", keys=("x.db",), size=5000, modified=NOW)
    text = render(status({**all_well(), "far": catalog("far", *nightly(), leftovers=(half,))}))
    assert value(text, "location_leftover_bytes", location="far") == 5000
    assert value(text, "location_leftover_bytes", location="near") == 0


def test_every_metric_that_is_promised_is_there_and_no_other():
    assert names(render(status(), drilled())) == set(METRICS)


def drilled(**changed):
    told = {"drill": "menu", "started": NOW, "verdict": "PASS", "rto": 14.0, "lost": 2.0, "median": 10.0, "ratio": 1.4}
    return LatestRun(**told | changed)


def test_the_last_run_of_a_drill_is_told_beside_those_before_it():
    text = render(drilled(), drilled(drill="volumes", verdict="ERROR", rto=None, lost=None, median=None, ratio=None))
    found = samples(text)
    assert found["clusterguard_drill_rto_seconds", ("drill", "menu")] == 14
    assert found["clusterguard_drill_rto_ratio", ("drill", "menu")] == 1.4
    assert found["clusterguard_drill_last_verdict", ("drill", "menu"), ("verdict", "PASS")] == 1
    assert found["clusterguard_drill_last_verdict", ("drill", "menu"), ("verdict", "FAIL")] == 0
    assert found["clusterguard_drill_last_verdict", ("drill", "volumes"), ("verdict", "ERROR")] == 1
    told = {name for name, *labels in samples(text) if dict(labels)["drill"] == "volumes"}
    assert told == {"clusterguard_drill_last_verdict", "clusterguard_drill_last_run_timestamp_seconds"}


def test_several_policies_share_their_families():
    other = status(
        {name: catalog(name, *nightly(), policy="staging") for name in ("near", "far")}, a_policy(name="staging")
    )
    text = render(status(), other)
    assert text.count(b"# TYPE clusterguard_overdue gauge") == 1
    assert {dict(labels).get("policy") for _, *labels in samples(text)} == {"prod", "staging"}


def test_a_name_with_quotes_and_lines_is_still_one_label():
    text = render(status(policy=a_policy(name='pr"od\nx\\')))
    assert {dict(labels)["policy"] for _, *labels in samples(text)} == {'pr"od\nx\\'}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH; it comes with Prometheus")
def test_prometheus_has_no_complaint():
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=render(status()), capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_all_names_have_units_and_prefixes():
    for name in METRICS:
        assert re.fullmatch(r"clusterguard_[a-z_]+", name)
        if "timestamp" in name:
            assert name.endswith("_timestamp_seconds")


# ---- a textfile ----------------------------------------------------------------------------------------------


def test_a_textfile_is_whole_and_for_everybody_to_read(tmp_path):
    file = tmp_path / "clusterguard.prom"
    file.write_text("old")
    write_textfile(file, status())
    assert file.read_bytes() == render(status())
    assert file.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["clusterguard.prom"]


def test_half_a_textfile_is_never_seen(tmp_path, monkeypatch):
    file = tmp_path / "clusterguard.prom"
    file.write_text("old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ClusterGuardError, match="No space left on device") as raised:
        write_textfile(file, status())
    assert str(tmp_path) in raised.value.hint
    assert file.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["clusterguard.prom"]


def test_a_textfile_needs_a_name_that_is_read(tmp_path):
    with pytest.raises(ConfigError, match=r"\.prom"):
        write_textfile(tmp_path / "metrics.txt", status())


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ClusterGuardError, match="No such file"):
        write_textfile(tmp_path / "none" / "x.prom", status())


# ---- a Pushgateway -------------------------------------------------------------------------------------------


@contextmanager
def gateway(code=200, wait=None):
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.command, self.path, body, self.headers.get("Authorization")))
            if wait is not None:
                wait.wait(10)
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", seen
    finally:
        if wait is not None:
            wait.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_push_replaces_the_policy_s_own_group():
    with gateway() as (address, seen):
        push(f"http://{address}", status())
    ((method, path, body, authorization),) = seen
    assert (method, path, authorization) == ("PUT", "/metrics/job/clusterguard/policy/prod", None)
    assert body == render(status())


def test_a_policy_s_name_cannot_leave_its_part_of_the_path():
    with gateway() as (address, seen):
        push(f"http://{address}", status(policy=a_policy(name="a/b")))
    encoded = base64.urlsafe_b64encode(b"a/b").decode()
    assert seen[0][1] == f"/metrics/job/clusterguard/policy@base64/{encoded}"


def test_a_password_is_sent_and_never_told(caplog):
    caplog.set_level("DEBUG")
    with gateway(code=403) as (address, seen), pytest.raises(ClusterGuardError) as raised:
        push(f"http://user:hunter2@{address}", status())
    assert seen[0][3] == "Basic " + base64.b64encode(b"user:hunter2").decode()
    assert f"the Pushgateway at http://{address} did not take the metrics: it answered 403" in raised.value.message
    assert "hunter2" not in f"{raised.value!r}{raised.value.hint}{raised.value.__cause__}{caplog.text}"


def test_a_gateway_that_is_down_is_told():
    with gateway() as (address, _):
        pass
    with pytest.raises(ClusterGuardError) as caught:
        push(f"http://{address}", status())
    assert caught.value.code == "metrics-not-pushed"
    assert "refused" in caught.value.message


def test_something_else_behind_the_address_is_told():
    class Mumbling(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"what?\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Mumbling) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(ClusterGuardError, match="its answer is not HTTP"):
            push(f"http://127.0.0.1:{server.server_address[1]}", status())
        thread.join()


def test_a_gateway_that_hangs_is_given_up():
    with gateway(wait=threading.Event()) as (address, _), pytest.raises(ClusterGuardError, match="in time"):
        push(f"http://{address}", status(), seconds=0.2)


def test_a_gateway_whose_answer_does_not_end_is_believed_by_its_status():
    with endless_server() as address:
        push(address, status())
    with endless_server(status=500) as address, pytest.raises(ClusterGuardError, match="answered 500"):
        push(address, status())
    with endless_server(status=307, headers=[("Location", "/")]) as address, pytest.raises(ClusterGuardError):
        push(address, status())


@pytest.mark.parametrize("url", ["", "pushgateway:9091", "ftp://host/"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="Pushgateway"):
        push(url, status())


def test_publishing_is_told_step_by_step(tmp_path):
    with gateway(code=500) as (address, _):
        policy = a_policy(
            metrics=Metrics.model_construct(
                textfile=str(tmp_path / "a.prom"), pushgateway=f"http://user:hunter2@{address}"
            )
        )
        first, second = publish(policy, status(), now=lambda: NOW)
    assert (first.verb, first.outcome, first.at) == ("metrics", "ok", NOW)
    assert (second.outcome, "it answered 500" in second.detail) == ("warning", True)
    assert "hunter2" not in f"{first}{second}{second.hint}"


def test_nothing_to_publish_is_nothing():
    assert publish(a_policy(), status()) == ()


# ---- served --------------------------------------------------------------------------------------------------


def fetched(url):
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own server
        return answer.status, answer.headers["Content-Type"], answer.read()


def test_what_is_served_is_what_is_rendered():
    with serve("127.0.0.1:0", lambda: [status()]) as url:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)
        code, kind, body = fetched(url)
    assert (code, body) == (200, render(status()))
    assert kind.startswith("text/plain; version=")


def test_starting_looks_at_nothing_and_one_look_is_for_all_who_ask_soon():
    looks = []

    def collect():
        looks.append(1)
        return [status()]

    with serve("127.0.0.1:0", collect, cache_seconds=60) as url:
        assert looks == []
        for _ in range(3):
            fetched(url)
    assert looks == [1]


def test_without_a_cache_every_answer_is_new():
    looks = []
    with serve("127.0.0.1:0", lambda: looks.append(1) or [status()], cache_seconds=0) as url:
        for _ in range(3):
            fetched(url)
    assert len(looks) == 3


def test_what_cannot_be_collected_is_an_error_and_never_an_old_number(capfd):
    answers = iter([[status()]])
    with serve("127.0.0.1:0", lambda: next(answers), cache_seconds=0) as url:
        fetched(url)
        with pytest.raises(urllib.error.HTTPError) as raised:
            fetched(url)
        raised.value.close()
    assert raised.value.code == 500


def test_an_address_that_is_taken_is_told():
    with serve("127.0.0.1:0", lambda: [status()]) as url:
        taken = url.removeprefix("http://").removesuffix("/metrics")
        with pytest.raises(ConfigError, match="cannot listen"), serve(taken, list):
            pass


@pytest.mark.parametrize("listen", ["9188", "host:", "host:x", "127.0.0.1:70000"])
def test_an_address_without_a_port_is_refused(listen):
    with pytest.raises(ConfigError, match="not an address and port"), serve(listen, list):
        pass


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(ConfigError) as raised:
        render(status())
    assert raised.value.hint == "pip install 'clusterguard[policy]'"
    assert metrics.METRICS
