"""`clusterguard run` on a real etcd, real S3, and real processes that are killed."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import time
import uuid
from urllib.parse import unquote

import pytest
from policy_nights import bucket_of, http_server

from clusterguard.errors import StoreUnavailableError
from clusterguard.policies.runs.lease import LOCK_KEY, Lease
from clusterguard.stores import LocalStore
from etcd_member import member
from s3_fault_proxy import Fault, fault_proxy

pytestmark = pytest.mark.programs


def encrypted(keys, **more):
    return {"recipientsFile": str(keys / "recipients.txt"), "identityFile": str(keys / "identity.txt"), **more}


def steps(report, verb):
    return [(step["location"], step["outcome"]) for step in report["steps"] if step["verb"] == verb]


# ---- the good night ----------------------------------------------------------------------------------------


def test_etcds_user_and_password_are_used_and_an_alarm_is_a_warning(nightly, toolchain, tmp_path, monkeypatch):
    with member(toolchain.ensure("etcd")["etcd"], tmp_path / "etcd") as etcd:
        etcd.put("/a")
        etcd.ask("auth/role/add", {"name": "root"})
        for name in ("root", "backup"):
            etcd.ask("auth/user/add", {"name": name, "password": "hook-secret"})
            etcd.ask("auth/user/grant", {"user": name, "role": "root"})
        identity = etcd.ask("maintenance/status", {})["header"]["member_id"]
        etcd.ask("maintenance/alarm", {"action": "ACTIVATE", "memberID": identity, "alarm": "NOSPACE"})
        etcd.ask("auth/enable", {})
        source = {"endpoints": [etcd.endpoint], "userEnv": "ETCD_USER", "passwordEnv": "ETCD_PASSWORD"}
        nightly.write(sources=[{"name": "etcd", "etcd": source}])
        monkeypatch.setenv("ETCD_USER", "backup")
        refused = nightly.report(code=2)
        monkeypatch.setenv("ETCD_PASSWORD", "hook-secret")
        report = nightly.report()
    assert [step["code"] for step in refused["steps"] if step["verb"] == "backup"] == ["variable-not-set"]
    [backup] = [step for step in report["steps"] if step["verb"] == "backup"]
    assert (backup["outcome"], backup["code"]) == ("warning", "alarm-nospace")
    assert "authentication is on" in backup["detail"]
    assert "hook-secret" not in json.dumps([refused, report])
    assert len(nightly.files()) == 2


def test_one_read_becomes_encrypted_copies_that_were_read_back(nightly, keys, frankfurt, toolchain, tmp_path):
    prefix = uuid.uuid4().hex
    locations = [
        {"name": "disk", "url": "./disk"},
        {"name": "frankfurt", "url": bucket_of(frankfurt, prefix)},
    ]
    nightly.write(locations=locations, encryption=encrypted(keys))
    report = nightly.report()
    assert report["outcome"] == "ok"
    assert sorted(steps(report, "verify")) == [("disk", "ok"), ("disk", "ok"), ("frankfurt", "ok")]
    [stored, record] = nightly.files()
    assert stored.endswith(".db.zst.age")
    assert (nightly.folder / "disk" / "nightly" / "etcd" / stored).read_bytes().startswith(b"age-encryption.org/v1")
    # What the other location has are the same bytes.
    there = frankfurt.directory / "backups" / prefix / "nightly" / "etcd"
    assert (there / stored).read_bytes() == (nightly.folder / "disk" / "nightly" / "etcd" / stored).read_bytes()

    plain = tmp_path / "plain"
    nightly.call("policy", "fetch", str(nightly.file), "etcd", "--to", str(plain), "--location", "frankfurt")
    etcdutl, snapshot = toolchain.ensure("etcdutl")["etcdutl"], plain / stored.removesuffix(".zst.age")
    told = subprocess.run(
        [etcdutl, "snapshot", "status", snapshot, "-w", "json"], check=True, capture_output=True, text=True
    )
    assert json.loads(told.stdout)["revision"] == json.loads((plain / record).read_text())["revision"]
    status = nightly.status()
    assert status["verdict"] == "protected" or "no drill" in str(status), status


def test_the_trail_says_who_did_what(nightly):
    nightly.write()
    nightly.run()
    nightly.run()
    assert "intact" in nightly.call("audit", "verify", str(nightly.file))
    shown = nightly.call("audit", "show", str(nightly.file))
    assert "the night shift" in shown
    assert shown.count("backup") >= 2
    trail = sorted((nightly.folder / "disk" / "nightly" / ".clusterguard" / "audit").iterdir())
    trail[0].write_text(trail[0].read_text().replace("night shift", "day shift"))
    nightly.call("audit", "verify", str(nightly.file), code=1)


def test_old_backups_go_by_the_policy(nightly):
    nightly.write(retention={"last": 2})
    for _ in range(4):
        nightly.run()
    assert len(nightly.files()) == 4, "two backups of two files each"
    shown = nightly.call("retain", str(nightly.file), "--dry-run")
    assert "2 stay, 0 go" in shown


def test_those_who_watch_are_told(nightly):
    with http_server() as (address, told):
        nightly.keep("beat", f"http://{address}/ping/secret-token")
        nightly.write(heartbeat={"urlFile": "./beat"}, metrics={"textfile": "./cg.prom"})
        said = nightly.run()
    assert told.paths == ["/ping/secret-token/start", "/ping/secret-token"]
    assert "secret-token" not in said
    with http_server() as (address, told):
        nightly.keep("beat", f"http://{address}/ping")
        nightly.run("--step", "verify")
    assert told.paths == [], "nobody must take a verification for the nightly backup"
    metrics = (nightly.folder / "cg.prom").read_text()
    assert re.search(r'clusterguard_verified_copies\{policy="nightly",source="etcd"\} 1\.0', metrics)


# ---- bad nights --------------------------------------------------------------------------------------------


def test_a_location_that_is_down_is_a_warning_and_is_made_up_for_later(nightly, frankfurt):
    away = nightly.folder / "away"
    away.write_text("a file where a folder should be")
    locations = [
        {"name": "disk", "url": "./disk"},
        {"name": "frankfurt", "url": bucket_of(frankfurt, uuid.uuid4().hex)},
        {"name": "nas", "url": "./away/nas"},
    ]
    nightly.write(locations=locations, copies=2)
    report = nightly.report()
    assert report["outcome"] == "warning"
    assert {"disk", "frankfurt"} == {location for location, _ in steps(report, "verify")}
    away.unlink()
    report = nightly.report()
    assert ("nas", "ok") in steps(report, "copy"), report
    assert len(nightly.files("away/nas")) == len(nightly.files()) == 4


@pytest.mark.parametrize(
    ("verb", "end"),
    [
        ("list", "nightly/etcd/"),
        ("put", ".age"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [("stat", ".json"), ("put", ".json"), ("get", ".age")]
        ),
    ],
)
def test_a_location_that_goes_away_is_named_once_and_the_others_have_it(nightly, keys, frankfurt, verb, end):
    """What goes away is a real S3 server, behind a proxy that answers 503 to everything from some request on."""
    with fault_proxy(frankfurt.endpoint) as proxy:
        cloud = bucket_of(frankfurt.behind(proxy.endpoint), uuid.uuid4().hex)
        locations = [{"name": "frankfurt", "url": cloud}, {"name": "disk", "url": "./disk"}]
        nightly.write(locations=locations, copies=1, encryption=encrypted(keys))
        proxy.decide = away_from(METHODS[verb], end)
        # A process of its own: the lock that it cannot give back is seen to be nobody's at once.
        process = nightly.start("run", str(nightly.file), "--json", stderr=subprocess.DEVNULL)
        report = json.loads(process.communicate(timeout=120)[0])
        assert (process.returncode, report["outcome"]) == (0, "warning")
        assert steps(report, "copy") == [("frankfurt", "warning")]
        assert [step["outcome"] for step in report["steps"] if step["verb"] == "backup"] == ["warning"]
        assert ("disk", "ok") in steps(report, "verify")
        assert len(nightly.files()) == 2
        proxy.decide = lambda _: None
        assert nightly.report()["outcome"] == "ok"
        here, there = sorted(nightly.status()["locations"], key=lambda each: each["name"])
        assert (here["backups"], there["backups"], there["damaged"], there["unverified"]) == (2, 2, 0, 0)


METHODS = {"list": "GET", "get": "GET", "stat": "HEAD", "put": "PUT"}


def away_from(method, end):
    """Answer 503 from the first request of a kind on."""
    left = False

    def decide(request):
        nonlocal left
        path = unquote(request.path)
        asked = path.partition("prefix=")[2].partition("&")[0] if "prefix=" in path else path.partition("?")[0]
        ours = "/etcd/" in asked and ("prefix=" in path) == (end == "nightly/etcd/")
        left = left or (request.method == method and ours and (end == "nightly/etcd/" or asked.endswith(end)))
        return Fault(status=503, code="SlowDown") if left else None

    return decide


def test_too_few_copies_are_a_failure_and_are_kept(nightly):
    (nightly.folder / "away").write_text("")
    nightly.write(locations=[{"name": "disk", "url": "./disk"}, {"name": "nas", "url": "./away/nas"}], copies=2)
    said = nightly.run(code=1)
    assert re.search(r"1 of \d copies read back and whole, and the policy wants 2", said), said
    assert len(nightly.files()) == 2


def test_no_location_at_all_is_a_failure_that_is_told(nightly):
    (nightly.folder / "away").write_text("")
    with http_server() as (address, told):
        nightly.keep("beat", f"http://{address}/ping")
        nightly.write(locations=[{"name": "nas", "url": "./away/nas"}], heartbeat={"urlFile": "./beat"})
        said = nightly.run(code=2)
    assert "no location takes a lock: nas: " in said
    assert told.paths == ["/ping/fail"], "a run starts once it holds the lock"


def test_an_etcd_that_is_down_fails_and_the_night_after_recovers(nightly):
    good = nightly.spec["sources"]
    with http_server() as (address, told):
        nightly.keep("oncall", f"json://{address}/oncall")
        notifications = [{"name": "oncall", "urlFile": "./oncall"}]
        nightly.write(
            sources=[{"name": "etcd", "etcd": {"endpoints": ["http://127.0.0.1:9"]}}], notifications=notifications
        )
        assert nightly.report(code=2)["outcome"] == "failed"
        nightly.write(sources=good)
        report = nightly.report()
    assert report["recovered"] == ["etcd"]
    assert len(told) == 2
    assert "127.0.0.1:9" in told[0][1]
    assert nightly.status()["sources"][0]["name"] == "etcd"


def test_a_notification_that_cannot_be_delivered_is_told_and_the_backup_counts(nightly):
    nightly.keep("oncall", "json://127.0.0.1:9/secret-token")
    nightly.write(notifications=[{"name": "oncall", "urlFile": "./oncall", "on": ["success"]}])
    report = nightly.report()
    told = [step for step in report["steps"] if step["verb"] == "notify"]
    assert [step["outcome"] for step in told] == ["warning"]
    assert "oncall" in told[0]["detail"]
    assert "secret-token" not in json.dumps(report)
    assert nightly.status()["sources"][0]["verified_copies" if "verified_copies" in str(nightly.status()) else "name"]


def test_a_key_that_opens_nothing_of_ours_fails_the_night(nightly, keys, toolchain):
    other = nightly.folder / "other.txt"
    subprocess.run([toolchain.ensure("age-keygen")["age-keygen"], "-o", other], check=True, capture_output=True)
    nightly.write(encryption=encrypted(keys, identityFile=str(other)))
    said = nightly.run(code=1)
    assert "the policy's own key does not decrypt what was just encrypted" in said
    assert "AGE-SECRET-KEY" not in said


@pytest.mark.parametrize("trouble", ["no room", "no answer"])
def test_trouble_while_reading_back_leaves_a_backup_that_can_be_fetched(nightly, keys, monkeypatch, trouble):
    """No room to open what was just written, or a store that does not give it: every byte is fine all the same."""
    nightly.write(encryption=encrypted(keys))
    nightly.run()
    if trouble == "no room":
        # Without its catalog a copy is one that nobody has read yet.
        (nightly.folder / "disk" / "nightly" / ".clusterguard" / "catalog.json").unlink()
        process = nightly.start(
            "run", str(nightly.file), "--step=verify", "--json", stderr=subprocess.DEVNULL, preexec_fn=small_files_only
        )
        report = json.loads(process.communicate(timeout=120)[0])
        assert process.returncode == 0
    else:
        with monkeypatch.context() as broken:
            broken.setattr(LocalStore, "get", refusing(LocalStore.get, ".age"))
            report = nightly.report(code=2)
    unread = [step["code"] for step in report["steps"] if step["verb"] == "verify"]
    assert set(unread) == {"copy-unread"}
    now = nightly.status()["locations"][0]
    assert (now["damaged"], now["unverified"], now["unread"]) == (0, int(trouble == "no answer"), 1)
    newest = nightly.status()["sources"][0]["newest"]
    nightly.call("policy", "fetch", str(nightly.file), "etcd", "--to", "./plain")
    assert (nightly.folder / "plain" / f"{newest}.db").is_file()
    assert nightly.report("--step", "verify")["outcome"] == "ok"
    assert nightly.status()["locations"][0]["unverified"] == 0


def small_files_only():
    """Let a process write no file that a database fits into, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def refusing(get, end):
    """A store's get that is refused by whoever stands before it."""

    def fail(store, key):
        if key.endswith(end):
            raise StoreUnavailableError("503 Slow Down")
        return get(store, key)

    return fail


def test_without_the_key_copies_are_proven_by_their_bytes_and_nobody_opens_them(nightly, keys):
    nightly.write(encryption={"recipientsFile": str(keys / "recipients.txt")})
    assert nightly.report()["outcome"] == "ok"
    said = nightly.call("policy", "fetch", str(nightly.file), "etcd", "--to", "./plain", code=2)
    assert "is encrypted: no key given" in said
    assert not (nightly.folder / "plain").exists()


def test_new_keys_for_old_copies(nightly, keys, toolchain):
    old = nightly.write(encryption=encrypted(keys)).rename(nightly.folder / "old.yaml")
    nightly.write()
    nightly.run()
    fresh = nightly.folder / "fresh.txt"
    program = toolchain.ensure("age-keygen")["age-keygen"]
    subprocess.run([program, "-o", fresh], check=True, capture_output=True)
    public = subprocess.run([program, "-y", fresh], check=True, capture_output=True, text=True).stdout.strip()
    nightly.write(encryption={"recipients": [public], "identityFile": str(fresh)})
    nightly.call("policy", "fetch", str(nightly.file), "etcd", "--to", "./early", code=2)
    assert "re-encrypted" in nightly.call("policy", "rotate", str(nightly.file), "--old", str(old))
    nightly.call("policy", "fetch", str(nightly.file), "etcd", "--to", "./plain")
    nightly.call("policy", "fetch", str(old), "etcd", "--to", "./late", code=2)
    assert len(nightly.files()) == 2, "the old copy is gone"
    assert nightly.report("--step", "verify")["outcome"] == "ok"


def test_a_full_volume_is_told_and_leaves_what_was_there(nightly):
    nightly.write(compression="none")
    nightly.run()
    before = nightly.files()
    process = nightly.start("run", str(nightly.file), preexec_fn=small_files_only)
    assert "File too large" in process.communicate(timeout=120)[0]
    assert process.returncode == 2
    assert nightly.files() == before


# ---- two runs, and runs that are killed --------------------------------------------------------------------


def test_two_runs_at_once_are_one_run_and_a_clear_message(nightly):
    nightly.write()
    first = nightly.start("run", str(nightly.file))
    second = nightly.start("run", str(nightly.file))
    said = [process.communicate(timeout=120)[0] for process in (first, second)]
    codes = sorted((first.returncode, second.returncode))
    # Where one was through before the other looked, both are fine; they never write at the same time.
    assert codes in ([0, 0], [0, 2]), said
    if codes == [0, 2]:
        assert any("another run of this policy" in each for each in said)
    assert nightly.call("audit", "verify", str(nightly.file))


@pytest.mark.parametrize(
    "after",
    [0.6, *(pytest.param(tenths / 20, marks=pytest.mark.slow) for tenths in range(4, 22))],
)
def test_killed_at_any_moment_the_next_run_goes_on(nightly, after):
    nightly.write(locations=[{"name": "disk", "url": "./disk"}, {"name": "nas", "url": "./nas"}], retention={"last": 2})
    nightly.run()
    for _ in range(2):
        process = nightly.start("run", str(nightly.file))
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    report = nightly.report()
    assert report["outcome"] in {"ok", "warning"}, report
    assert nightly.report()["outcome"] == "ok"
    # Every record has its bytes, in both locations, no half-written file is left, and nobody holds the lock.
    for location in ("disk", "nas"):
        files = nightly.files(location)
        records = [name for name in files if name.endswith(".json")]
        assert len(records) == 2
        assert all(name.removesuffix(".json") + ".db.zst" in files for name in records)
        assert Lease.parse((nightly.folder / location / "nightly" / LOCK_KEY).read_bytes()).holder == ""
    assert nightly.call("audit", "verify", str(nightly.file))


def test_what_a_killed_run_left_is_listed_and_goes_after_a_day(nightly):
    nightly.write(locations=[{"name": "disk", "url": "./disk"}, {"name": "nas", "url": "./nas"}])
    nightly.run()
    folder, kept = nightly.folder / "nas" / "nightly" / "etcd", nightly.files("nas")
    record, half = folder / kept[1], folder / kept[0]
    assert (record.suffix, half.suffix) == (".json", ".zst")
    young = folder / half.name.replace(".db", "~0a1b2c3d.db")
    young.write_bytes(b"what a rotation left a moment ago")
    record.unlink()
    dated = time.time() - 25 * 3600
    os.utime(half, (dated, dated))
    assert [each["leftovers"] for each in nightly.status()["locations"]] == [0, 1]
    # The youngest part of it counts: somebody may be at work.
    assert "not a day old yet" in nightly.call("retain", str(nightly.file), "--dry-run")
    os.utime(young, (dated, dated))
    assert "1 broke off and go" in nightly.call("retain", str(nightly.file), "--dry-run")
    assert {half.name, young.name} <= set(nightly.files("nas"))
    nightly.call("retain", str(nightly.file))
    assert nightly.files("nas") == []
    assert len(nightly.files()) == 2
    assert nightly.report()["outcome"] in {"ok", "warning"}
    assert nightly.report("--step", "verify")["outcome"] == "ok"
    assert nightly.files("nas") == nightly.files()


def test_a_broken_policy_starts_nothing(nightly):
    nightly.file.write_text("kind: BackupPolicy\nspec: {sources: []}\n")
    said = nightly.run(code=2)
    assert "policy.yaml:1:1" in said
    assert not (nightly.folder / "disk").exists()
