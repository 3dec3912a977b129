"""The published JSON Schema, and the drills that ship."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

from clusterguard.drills import schema
from clusterguard.drills.load import load_drills
from clusterguard.drills.steps.registry import verbs

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "drills").rglob("*.drill.yaml"))


def test_the_published_schema_is_current():
    published = (ROOT / "docs/reference/drill-v1alpha1.schema.json").read_text(encoding="utf-8")

    assert published == schema.drill_schema_text(), "write it again: clusterguard drill schema"


def test_the_schema_says_what_it_is():
    described = schema.drill_schema()

    assert described["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert described["$id"] == schema.SCHEMA_URL
    assert json.loads(schema.drill_schema_text()) == described


def test_every_key_has_a_title_and_a_description_and_none_can_be_null():
    described = schema.drill_schema()
    for definition in [described, *described["$defs"].values()]:
        for key, field in definition.get("properties", {}).items():
            assert field["title"] == key
            assert field["description"]
            assert field.get("default", ...) is not None


def test_no_mapping_takes_unknown_keys():
    described = schema.drill_schema()

    assert all(one["additionalProperties"] is False for one in described["$defs"].values())


def test_every_step_needs_exactly_one_action():
    step = schema.drill_schema()["$defs"]["RestoreStep"]

    assert [one["required"] for one in step["oneOf"]] == [
        ["apply"],
        ["etcdRestore"],
        ["exec"],
        ["patch"],
        ["replaceMember"],
        ["startMember"],
        ["startNode"],
        ["veleroRestore"],
    ]


def test_cleanup_takes_every_action():
    assert schema.CleanupStep.fields_of_verbs.keys() == verbs().keys()
    assert [verb for verb, action in verbs().items() if action.phases == ("cleanup",)] == ["unblockStorage"]


def test_every_shipped_drill_loads():
    assert [path.name for path in SHIPPED if not load_drills(path, root=ROOT)] == []
    assert len(SHIPPED) >= 16


def test_importing_the_package_does_not_load_the_schema():
    code = "import sys, clusterguard; sys.exit('pydantic' in sys.modules or 'yaml' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_example_of_the_reference_is_the_one_that_is_tested():
    reference = (ROOT / "docs/reference/drill-files.md").read_text(encoding="utf-8")
    shown = yaml.safe_load(reference.split("```yaml\n")[1].split("```")[0])
    tested = yaml.safe_load((Path(__file__).parent / "examples/etcd-pods.yaml").read_text(encoding="utf-8"))
    del tested["spec"]["clusters"]

    assert shown == tested


def test_the_reference_names_every_action_and_every_key_of_spec():
    reference = (ROOT / "docs/reference/drill-files.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[`.]([A-Za-z]+)", reference))
    keys = {field.alias or name for name, field in schema.DrillSpec.model_fields.items()}

    assert verbs().keys() <= words
    assert keys <= words
