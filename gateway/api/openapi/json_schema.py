"""JSON Schema of the Structs that are parsed and served: msgspec's own, simplified for readers."""

import dataclasses
from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import UNSET

Schema = dict[str, Any]
NULL = {"type": "null"}
OF_A_TYPE = frozenset({"anyOf", "type", "contentEncoding"})
REFERENCE = "#/components/schemas/{name}"


def reference(kind: type) -> Schema:
    return {"$ref": REFERENCE.format(name=kind.__name__)}


def components(parsed: Collection[type], served: Collection[type]) -> Schema:
    """Returns the schemas by name, with those of nested Structs. In a served Struct all fields are required, except UNSET ones.

    A parsed Struct's `together` is added to its schema: what values of several fields may be sent at once.
    """
    kinds = [*parsed, *served]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    shown = {name: _without_notes(_simplify(schema)) for name, schema in schemas.items()}
    for kind in parsed:
        shown[kind.__name__] |= getattr(kind, "together", {})
    for kind in served:
        shown[kind.__name__]["required"] = [name for name, default in _fields_of(kind) if default is not UNSET]
    return shown


def _fields_of(kind: type) -> list[tuple[str, object]]:
    """Returns the names and defaults of a Struct's or a dataclass's fields."""
    if dataclasses.is_dataclass(kind):
        return [(field.name, field.default) for field in dataclasses.fields(kind)]
    return [(field.encode_name, field.default) for field in msgspec.structs.fields(kind)]


def _without_notes(schema: Schema) -> Schema:
    """Removes title and description: docstrings are for readers of the code, not of the API."""
    return without(without(schema, "title"), "description")


def _simplify(schema: Any) -> Any:
    """Merges `anyOf` of one schema and null into one schema. A `oneOf` that a field declares replaces the schema of its type."""
    if isinstance(schema, list):
        return [_simplify(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    shown = {key: _simplify(value) for key, value in schema.items() if not (key == "default" and value is None)}
    if "oneOf" in shown:
        return {key: value for key, value in shown.items() if key not in OF_A_TYPE}
    kinds = [each for each in shown.get("anyOf", []) if each != NULL]
    if len(kinds) == 1 and len(shown["anyOf"]) > 1 and "$ref" not in kinds[0]:
        return {**without(shown, "anyOf"), **_or_null(kinds[0])}
    return shown


def without(schema: Schema, key: str) -> Schema:
    return {name: value for name, value in schema.items() if name != key}


def _or_null(schema: Schema) -> Schema:
    """Returns the schema extended to allow null."""
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    return {**schema, "type": [schema["type"], "null"]}
