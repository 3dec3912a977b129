"""The published JSON Schema, the example and the reference page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from pydantic import BaseModel

from clusterguard.policies import policy as schema
from clusterguard.policies.files.load import load_policy

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "docs/reference/policy-files.md"


def models():
    return [
        each
        for each in vars(schema).values()
        if isinstance(each, type) and issubclass(each, BaseModel) and each is not schema.Policy
    ]


def test_the_published_schema_is_current():
    published = (ROOT / "docs/reference/policy-v1alpha1.schema.json").read_text(encoding="utf-8")

    assert published == schema.policy_schema_text(), "write it again: clusterguard policy schema"


def test_the_schema_says_what_it_is():
    described = json.loads(schema.policy_schema_text())

    assert described["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert described["$id"] == "https://clusterguard.dev/schemas/policy-v1alpha1.json"
    assert described["properties"]["kind"]["const"] == "BackupPolicy"


def test_every_key_has_a_title_and_a_description_and_none_can_be_null():
    described = schema.policy_schema()
    for definition in [described, *described["$defs"].values()]:
        assert definition["additionalProperties"] is False
        for key, field in definition["properties"].items():
            assert field["title"] == key
            assert field["description"]
            assert field.get("default", ...) is not None


def test_the_reference_names_every_key():
    words = set(re.findall(r"[`.{,\s]([a-z][A-Za-z]+)", REFERENCE.read_text(encoding="utf-8")))
    keys = {field.alias or name for model in models() for name, field in model.model_fields.items()}

    assert keys - words == set()


def test_the_example_is_valid_and_the_one_that_the_reference_shows():
    example = ROOT / "examples/policy.yaml"
    shown = REFERENCE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]

    assert load_policy(example, environ={}).name == "production"
    assert yaml.safe_load(shown) == yaml.safe_load(example.read_text(encoding="utf-8"))
