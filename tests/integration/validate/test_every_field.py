"""A defect in any field of any object is seen, unless a rule has a cause: every field of real objects is changed once.

In memory, for what a real control plane made of some manifests: each leaf is changed, and taken away.
"""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import yaml
from what_comes_back import GONE, another, changed, leaves

from clusterguard.model.inventory import Scope
from clusterguard.validate import PROFILES, RestoreValidator, Tolerance
from clusterguard.validate.validator import judge

pytestmark = pytest.mark.programs

MANIFESTS = [*yaml.safe_load_all(Path(__file__).with_name("a_bit_of_everything.yaml").read_text())]

# What may differ in an object that is the same as before, down to its uid, and why nobody needs to know.
IN_PLACE = {
    ("generation", "metadata.generation"),
    ("resource version", "metadata.resourceVersion"),
    ("rollout revision", "metadata.annotations.deployment.kubernetes.io/revision"),
    ("rollout revision", "metadata.annotations.deprecated.daemonset.template.generation"),
    ("service addresses", "spec.clusterIP"),
    ("service addresses", "spec.ports.[].nodePort"),
}
# What may differ in an object that Velero made again: the rest of it is the identity, and what is assigned.
MADE_AGAIN = IN_PLACE | {
    ("assigned node", "spec.nodeName"),
    ("binding noted anew", "metadata.annotations.pv.kubernetes.io/bind-completed"),
    ("binding noted anew", "metadata.annotations.pv.kubernetes.io/bound-by-controller"),
    ("issued tokens", "data.ca.crt"),
    ("issued tokens", "data.token"),
    ("job identity", "metadata.labels.batch.kubernetes.io/controller-uid"),
    ("job identity", "metadata.labels.controller-uid"),
    ("job identity", "spec.selector.matchLabels.batch.kubernetes.io/controller-uid"),
    ("job identity", "spec.template.metadata.labels.batch.kubernetes.io/controller-uid"),
    ("job identity", "spec.template.metadata.labels.controller-uid"),
    ("name pattern", "metadata.generateName"),
}


@pytest.fixture(scope="module")
def inventory(api):
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "every-field"}})
    for item in MANIFESTS:
        api.apply(item, namespace="every-field" if api.resource_of(item).namespaced else None)
    for kind, name, key in (("PersistentVolumeClaim", "c1", "phase"), ("Job", "job", "completionTime")):
        api.wait_for(
            api.resource(kind),
            name,
            "every-field",
            until=lambda seen, key=key: bool(seen and seen.get("status", {}).get(key) not in {None, "Pending"}),
            what=f"{kind} {name}",
            timeout_seconds=60,
        )
    inventory = RestoreValidator(api=api).capture(Scope(exclude=("*.flowcontrol.apiserver.k8s.io",)))
    assert len(inventory) > len(MANIFESTS)
    return inventory


def made_again(item):
    metadata = item["metadata"]
    metadata |= {"uid": f"new-{metadata['uid']}", "creationTimestamp": "2036-01-01T00:00:00Z"}
    metadata["labels"] = (metadata.get("labels") or {}) | {"velero.io/restore-name": "r", "velero.io/backup-name": "b"}
    return item


NAMES = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"), ("metadata", "uid")}


def unseen(inventory, profile, *, again=False):
    """Return the rule and field of each change that the comparison does not tell."""
    found = set()
    for ref, data in inventory.objects.items():
        item = orjson.loads(data)
        for path, value in leaves(item):
            if path in NAMES or path[0] == "status" or (again and path == ("metadata", "creationTimestamp")):
                continue
            field = ".".join("[]" if isinstance(step, int) else step for step in path)
            for other in (another(value), GONE):
                now = changed(item, path, other)
                rules = explaining(inventory, ref, data, made_again(now) if again else now, profile)
                found |= {(rule, field) for rule in rules}
    return found


def explaining(inventory, ref, data, now, profile):
    """Return the rules that explain all of a change, or none if something of it is told."""
    before = replace(inventory, objects={ref: data}, system={})
    after = replace(inventory, objects={ref: orjson.dumps(now, option=orjson.OPT_SORT_KEYS)}, system={})
    report = judge(before, after, profile=profile, tolerate=Tolerance(), digest_key=b"k")
    rules = {item.rule for item in report.suppressed} if report.ok else set()
    return rules - {"new identity", "velero labels"}  # what `made_again` does to each of them


# Each object is alone here, so nobody can tell whether a uid is that of its owner, claim or account.
UNKNOWN = {
    ("claim made again", "spec.claimRef.resourceVersion"),
    ("claim made again", "spec.claimRef.uid"),
    ("issued tokens", "metadata.annotations.kubernetes.io/service-account.uid"),
    ("new identity of the owner", "metadata.ownerReferences.[].uid"),
}


def test_after_an_etcd_restore_each_changed_field_is_seen(inventory):
    assert unseen(inventory, PROFILES["etcd-restore"]) == set()


@pytest.mark.parametrize("profile", ["velero-restore", "same-cluster"])
def test_in_an_object_that_was_left_in_place_each_changed_field_is_seen(inventory, profile):
    assert unseen(inventory, PROFILES[profile]) - UNKNOWN <= IN_PLACE


def test_in_an_object_that_velero_made_again_each_changed_field_is_seen_but_for_what_is_assigned(inventory):
    assert unseen(inventory, PROFILES["velero-restore"], again=True) - UNKNOWN <= MADE_AGAIN
