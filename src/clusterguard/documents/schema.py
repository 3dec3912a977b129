"""The JSON Schema of a document, for editors and for checks outside of Python, from its pydantic model."""

from __future__ import annotations

import ast
import json
from inspect import cleandoc, getsource
from itertools import pairwise
from textwrap import dedent
from typing import TYPE_CHECKING, Any, cast

from pydantic.json_schema import GenerateJsonSchema

from clusterguard.documents.model import Model

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["document_schema", "schema_text"]


def document_schema(
    model: type[Model],
    *,
    url: str,
    title: str,
    scope: str | None = None,
    adjust: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a kind of document.

    Args:
        model: The whole document.
        url: Where the schema is published.
        title: What editors call it.
        scope: Whose values may stand for numbers and booleans, such as ``matrix``; None for none.
        adjust: Adds to the definitions what pydantic does not know of.
    """
    schema = model.model_json_schema(by_alias=True, schema_generator=_Described)
    definitions: dict[str, Any] = schema.pop("$defs")
    if adjust is not None:
        adjust(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": url,
        **_polished(schema, definitions, scope),
        "title": title,
        "$defs": {name: _polished(definition, definitions, scope) for name, definition in definitions.items()},
    }


def schema_text(schema: dict[str, Any]) -> str:
    """Return a JSON Schema as the text that is published."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


class _Described(GenerateJsonSchema):
    """Describes fields by the docstrings under them; pydantic would read the source of every model at every start."""

    def model_schema(self, schema: Any) -> dict[str, Any]:  # noqa: ANN401 - a type of pydantic's core
        described = super().model_schema(schema)
        model: type[Model] = schema["cls"]
        for name, text in _docstrings(model).items():
            described["properties"][model.model_fields[name].alias or name].setdefault("description", text)
        return described


def _docstrings(model: type[Model]) -> dict[str, str]:
    """Return the docstrings under a model's fields, and under those that it has from others."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, Model):
            definition = ast.parse(dedent(getsource(each))).body[0]
            for field, below in pairwise(cast("ast.ClassDef", definition).body):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = cleandoc(text)
    return {name: text for name, text in found.items() if name in model.model_fields}


def _polished(definition: dict[str, Any], definitions: dict[str, Any], scope: str | None) -> dict[str, Any]:
    if "properties" not in definition:
        return definition
    fields = definition["properties"].items()
    return {
        **definition,
        "properties": {key: _polished_field(key, field, definitions, scope) for key, field in fields},
    }


def _polished_field(key: str, field: dict[str, Any], definitions: dict[str, Any], scope: str | None) -> dict[str, Any]:
    """Name a field as the file does, describe it by what it refers to, and let references pass."""
    referred = definitions.get(field.get("$ref", "").rpartition("/")[2], {})
    described = {"description": referred.get("description", ""), **field, "title": key}
    if field.get("default", ...) in (None, ""):  # a file cannot say null, and an empty text is one that was left out
        del described["default"]
    if scope is not None and field.get("type") in ("integer", "boolean"):
        rules = {name: described.pop(name) for name in ("type", "minimum", "maximum") if name in described}
        described["anyOf"] = [rules, {"type": "string", "pattern": rf"^\$\{{{scope}\.[^{{}}]+\}}$"}]
    return described
