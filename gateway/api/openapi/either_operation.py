"""The OpenAPI operation of a path whose body may have the form of either of two protocols."""

from collections.abc import Collection
from dataclasses import dataclass, fields

from gateway.api.error_format import JSON
from gateway.api.openapi.json_schema import Schema, without
from gateway.api.openapi.operation import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class EitherOperation(Operation):
    """An operation whose body decides between two forms, each with its own reply and errors.

    `other` is the second form, which is taken if `other_door`, a path of its protocol, is served too.
    """

    other: Operation
    other_door: str

    def where(self, paths: Collection[str]) -> Operation:
        """Returns the operation of a gateway that serves these paths."""
        if self.other_door in paths:
            return self
        return Operation(**{field.name: getattr(self, field.name) for field in fields(Operation)})

    def describe(self, *, needs_key: bool) -> Schema:
        first, second = Operation.describe(self, needs_key=needs_key), self.other.describe(needs_key=needs_key)
        ours, theirs = first["responses"], second["responses"]
        body = {"required": True, "content": _either(first["requestBody"]["content"], second["requestBody"]["content"])}
        responses = {
            status: _either_response(ours[status], theirs[status]) if status in ours and status in theirs
            else ours.get(status) or theirs[status]
            for status in sorted({*ours, *theirs})
        }  # fmt: skip
        return {**first, "summary": f"{self.summary}; {self.other.summary}", "requestBody": body, "responses": responses}


def _either_response(ours: Schema, theirs: Schema) -> Schema:
    """Returns a response of either form: a header that only one of them is sure of is not sure."""
    headers = {
        name: header if name in ours["headers"] and name in theirs["headers"] else without(header, "required")
        for name, header in {**theirs["headers"], **ours["headers"]}.items()
    }
    return {**ours, "headers": headers, "content": _either(ours["content"], theirs["content"])}


def _either(ours: Schema, theirs: Schema) -> Schema:
    """Returns the content, by media type, that is in either form."""
    both = {JSON: {"schema": {"anyOf": [ours[JSON]["schema"], theirs[JSON]["schema"]]}}}
    return {**theirs, **ours, **both}
