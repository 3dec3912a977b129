"""What a report looks like, and when it is an exception."""

import json

import pytest

from clusterguard.errors import RestoreValidationError
from clusterguard.model.inventory import ObjectRef
from clusterguard.model.report import FieldChange, Finding, FindingKind, Suppression, ValidationReport

WEB = ObjectRef("Deployment", "shop", "web", "apps")
SETTINGS = ObjectRef("ConfigMap", "shop", "settings")
MISSING = Finding(kind=FindingKind.MISSING, ref=SETTINGS)


def changed(before, after, path="spec.replicas"):
    return Finding(kind=FindingKind.CHANGED, ref=WEB, changes=(FieldChange(path=path, before=before, after=after),))


def test_a_report_reads_as_a_diff():
    report = ValidationReport(
        compared=3,
        findings=[MISSING, changed("3", "5")],
        tolerated=[Finding(kind=FindingKind.EXTRA, ref=ObjectRef("Pod", "shop", "web-1"))],
        suppressed=[Suppression(rule="status", ref=WEB, path="status")],
    )
    assert report.to_text().splitlines() == [
        "3 objects compared, 2 findings: 1 missing, 1 changed",
        "",
        "--- missing: ConfigMap shop/settings",
        "",
        "--- changed: Deployment.apps shop/web",
        "@@ spec.replicas",
        "- 3",
        "+ 5",
        "",
        "tolerated: 1",
        "+++ extra: Pod shop/web-1",
        "",
        "differences that rules explain: status 1",
    ]


def test_texts_of_several_lines_are_compared_line_by_line():
    before, after = (json.dumps(f"a: 1\nb: {value}\nc: 3\nd: 4") for value in (2, 5))
    text = ValidationReport(compared=1, findings=[changed(before, after, "data.conf")]).to_text()
    assert text.splitlines()[-4:] == [" a: 1", "-b: 2", "+b: 5", " c: 3"]


def test_long_values_are_cut_in_the_text_and_whole_in_the_data():
    value = json.dumps("x" * 5000)
    report = ValidationReport(compared=1, findings=[changed(value, None)])
    assert len(report.to_text()) < 600
    assert "more characters" in report.to_text()
    assert report.to_dict()["findings"][0]["changes"][0]["before"] == value


@pytest.mark.parametrize(
    ("report", "ok"),
    [
        (ValidationReport(compared=1), True),
        (ValidationReport(compared=1, tolerated=[MISSING]), True),
        (ValidationReport(compared=1, findings=[MISSING]), False),
        (ValidationReport(compared=0), False),
    ],
)
def test_findings_or_an_empty_comparison_raise(report, ok):
    assert report.ok is ok
    if ok:
        report.raise_for_findings()
        return
    with pytest.raises(RestoreValidationError) as caught:
        report.raise_for_findings()
    assert caught.value.report is report
    assert str(caught.value) == report.to_text()


def test_data_form_is_json():
    report = ValidationReport(
        compared=1, findings=[changed("3", "5")], suppressed=[Suppression(rule="r", ref=WEB, path="p")]
    )
    assert json.loads(json.dumps(report.to_dict()))["findings"][0]["object"] == {
        "kind": "Deployment.apps",
        "namespace": "shop",
        "name": "web",
    }
