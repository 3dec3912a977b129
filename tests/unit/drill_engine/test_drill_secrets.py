"""Values of Secrets are nobody's business: not the terminal's, not the journal's, not the result's."""

import base64
import gzip
import io
import json
from datetime import timedelta

import pytest
import yaml
from rich.console import Console

from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drills
from clusterguard.errors import EtcdUnavailableError
from clusterguard.terminal.drill_view import DrillView

OLD, NEW = "correct-horse-battery", "staple-of-tomorrow"
FORMS = [form for value in (OLD, NEW) for form in (value, base64.b64encode(value.encode()).decode())]


@pytest.fixture
def leaking(spec, cluster):
    """A drill in which everything about a Secret goes wrong at once."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "login", "namespace": "shop"},
        "stringData": {"password": OLD},
    }
    spec["setup"][0]["apply"] = {"file": "shop.yaml"}
    spec["fault"].append(
        {"delete": {"kind": "Secret", "namespace": "shop", "name": "login"}},
    )

    def changed(api):
        api.item("Secret", "login")["data"]["password"] = FORMS[3]

    cluster.restored = changed
    spec["verify"].append({
        "assert": {
            "resource": {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "login", "namespace": "shop"},
                "data": {"password": "${env.PASSWORD}", "user": "${env.PASSWORD}"},
            },
        },
    })  # fmt: skip
    return spec, secret


def test_a_changed_secret_is_told_without_its_values(leaking, cluster, tmp_path):
    spec, secret = leaking
    manifests = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}, secret]
    manifests.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "shop"}})
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump_all(manifests))
    file = tmp_path / "small.drill.yaml"
    document = {"apiVersion": "clusterguard.dev/v1alpha1", "kind": "Drill", "metadata": {"name": "small"}, "spec": spec}
    file.write_text(yaml.safe_dump(document))
    (drill,) = load_drills(file, environ={"PASSWORD": FORMS[1]})
    console = Console(record=True, width=100, file=io.StringIO())
    settings = DrillSettings(open=lambda _: cluster, evidence=tmp_path / "evidence", longest_wait=timedelta(0))
    result = DrillRunner(settings=settings, on_event=DrillView(console)).run(drill)
    shown = console.export_text()
    assert result.verdict is Verdict.FAIL
    for what in ("Secret shop/login", "data.password"):
        assert what in result.diff.replace("\n", " ")
    assert "differs" in result.diff  # the assertion, too, tells that something does, and not what
    files = {file.name: file.read_bytes() for file in (tmp_path / "evidence").rglob("*") if file.is_file()}
    assert {"inventory-before-main.jsonl.gz", "inventory-after-main.jsonl.gz", "comparison.json"} <= files.keys()
    written = [(gzip.decompress(data) if ".gz" in name else data).decode() for name, data in files.items()]
    for text in (json.dumps(result.to_dict()), shown, repr(result), *written):
        for form in FORMS:
            assert form not in text


def test_a_value_that_a_drill_file_or_a_log_repeats_is_unreadable_in_the_evidence(spec, run, cluster, tmp_path):
    spec["setup"][0]["apply"]["manifest"].append({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "login", "namespace": "shop"},
        "data": {"password": FORMS[1]},
    })  # fmt: skip
    spec["description"] = f"it logs in with {OLD}"
    cluster.broken["restore"] = EtcdUnavailableError(f"refused: user web, password {OLD}")
    result = run(spec, evidence=tmp_path / "evidence")
    assert OLD in result.reason  # the terminal's own business; what is handed over is another matter
    for file in (tmp_path / "evidence").rglob("*.*"):
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for form in FORMS[:2]:
            assert form.encode() not in data, file.name
    (drill,) = (tmp_path / "evidence").rglob("drill.yaml")
    assert "it logs in with •••" in drill.read_text()


def test_a_password_that_is_a_part_of_a_name_takes_no_run_its_name(spec, run, cluster, tmp_path):
    from signing_keys import KEY

    from clusterguard.evidence.verification import verify_evidence

    spec["setup"][0]["apply"]["manifest"].append({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "login", "namespace": "shop"},
        "stringData": {"password": "recovered", "user": "not-recovered"},
    })  # fmt: skip
    cluster.restored = lambda api: api.item("ConfigMap", "web")["data"].update(page="shut")
    result = run(spec, evidence=tmp_path / "evidence", evidence_key=KEY)
    (report,) = verify_evidence(tmp_path / "evidence", KEY.public)
    assert (report.ok, report.predicate["code"]) == (True, "not-recovered")
    (file,) = (tmp_path / "evidence").rglob("result.json")
    written = json.loads(file.read_text())
    assert (written["code"], written["drill"]) == (result.code, "small")
    assert "recovered" not in written["reason"]
