"""Every case of the corpus gets its verdict; see tests/corpus/README.md."""

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from fake_client import FakeClient, kind

from clusterguard.errors import WaitTimeoutError
from clusterguard.model.inventory import Scope
from clusterguard.validate import PROFILES, RestoreValidator, Selection, Tolerance
from clusterguard.validate.renaming import in_other_namespaces

CORPUS = Path(__file__).parents[2] / "corpus"
CASES = [case for file in sorted(CORPUS.glob("*.yaml")) for case in yaml.safe_load(file.read_text())]
COMPARED = [
    (case, profile)
    for case in CASES
    if "profile" in case
    for profile in ([case["profile"]] if isinstance(case["profile"], str) else case["profile"])
]
KEYS = {
    *(
        "what",
        "from",
        "profile",
        "kinds",
        "before",
        "after",
        "add",
        "again",
        "plainStatus",
        "namespaces",
        "versions",
        "silent",
    ),
    *("findings", "explained", "ready", "because"),
}


def filled(item, *, uid=None):
    item = copy.deepcopy(item)
    metadata = item["metadata"]
    metadata.setdefault("uid", f"uid-{metadata['name']}")
    metadata.setdefault("resourceVersion", "5")
    metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
    if uid:
        metadata |= {"uid": uid, "creationTimestamp": "2026-01-02T00:00:00Z", "resourceVersion": "90"}
    return item


def patched(value, patch):
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            merged.pop(key, None)
        else:
            merged[key] = patched(merged.get(key), change)
    return merged


def left(case):
    """Return what is there after."""
    patches = case.get("after", [{}] * len(case["before"]))
    for item, patch in zip(case["before"], patches, strict=True):
        if patch is None:
            continue
        now = patched(item, patch)
        new = f"new-{now['metadata']['name']}" if case.get("again") else None
        yield filled(now, uid=(patch.get("metadata") or {}).get("uid") or new)
    yield from (filled(item) for item in case.get("add", ()))


def kinds_of(case, items):
    found = {}
    for item in items:
        group, _, version = item["apiVersion"].rpartition("/")
        full = f"{item['kind']}.{group}" if group else item["kind"]
        subresources = set() if full in case.get("plainStatus", ()) else {"status"}
        found[full, version] = kind(
            item["kind"],
            group,
            version=version,
            namespaced="namespace" in item["metadata"],
            subresources=subresources,
        )
    return tuple(found.values())


def in_words(finding):
    paths = "".join(f" {change.path}" for change in finding.changes)
    return f"{finding.kind} {finding.ref}" + (f":{paths}" if paths else "")


@cache
def captured(what):
    """Return what a validator captured before, and the cluster as it is after."""
    [case] = [each for each in CASES if each["what"] == what]
    before, after = [filled(item) for item in case["before"]], list(left(case))
    api = FakeClient(*before, kinds=kinds_of(case, [*before, *after]))
    silent, versions = case.get("silent", ((), ())), case.get("versions", ("v1.36.3",) * 2)
    api.gaps, api.version = silent[0], versions[0]
    captured = RestoreValidator(api=api).capture(Scope(kinds=tuple(case.get("kinds", ()))))
    inventory = in_other_namespaces(captured, case.get("namespaces", {}))
    api.items, api.gaps, api.version = after, silent[1], versions[1]
    api.kinds = tuple(each for each in api.kinds if each.api_version not in silent[1])
    return inventory, api


def judged(case, profile):
    inventory, api = captured(case["what"])
    return RestoreValidator(api=api, digest_key=b"k").validate(inventory, profile=profile, tolerate=Tolerance(extra=0))


@pytest.mark.parametrize(
    ("case", "profile"), COMPARED, ids=lambda value: value if isinstance(value, str) else value["what"]
)
def test_a_case_gets_its_verdict(case, profile):
    report = judged(case, profile)
    assert [in_words(finding) for finding in report.findings] == case["findings"], report.to_text()
    assert set(case.get("explained", ())) <= {*report.suppressed_by_rule}


READY = [case for case in CASES if "ready" in case]


@pytest.mark.parametrize("case", READY, ids=lambda case: case["what"])
def test_a_case_is_ready_or_not(case):
    items = [filled(item) for item in case["before"]]
    api = FakeClient(*items, kinds=kinds_of(case, items))
    first = items[0]
    selection = Selection(
        kind=str(api.resource(first["kind"])),
        namespace=first["metadata"].get("namespace", ""),
        names=(first["metadata"]["name"],),
    )
    ready = RestoreValidator(api=api)
    if case["ready"]:
        evidence = ready.wait_ready(selection, timeout_seconds=0)
        assert case.get("because", "") in " ".join(evidence.objects.values())
        return
    with pytest.raises(WaitTimeoutError) as raised:
        ready.wait_ready(selection, timeout_seconds=0)
    assert case.get("because", "") in raised.value.message


def test_every_case_is_written_as_the_readme_says():
    for case in CASES:
        assert set(case) <= KEYS, case["what"]
        assert case["from"], case["what"]
        assert ("profile" in case) != ("ready" in case), case["what"]
    assert len({case["what"] for case in CASES}) == len(CASES)


CONDITIONAL = {rule.name for profile in PROFILES.values() for rule in profile.rules if rule.when is not None} - {
    "heartbeat"
}  # Leases are not listed by default; see test_compare.py


def test_every_rule_explains_something_in_a_case():
    assert {rule for case, _ in COMPARED for rule in case.get("explained", ())} >= CONDITIONAL


@pytest.mark.parametrize("rule", sorted(CONDITIONAL))
def test_a_rule_that_did_not_ask_for_its_cause_would_let_a_red_case_pass(rule):
    blind = {
        name: replace(
            profile, rules=tuple(replace(each, when=None) if each.name == rule else each for each in profile.rules)
        )
        for name, profile in PROFILES.items()
    }
    reds = [(case, blind[name]) for case, name in COMPARED if case["findings"]]
    assert any([in_words(finding) for finding in judged(case, eye).findings] != case["findings"] for case, eye in reds)
