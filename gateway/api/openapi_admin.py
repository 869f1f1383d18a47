"""The admin paths in /openapi.json, where they are served."""

from typing import Any

from gateway.access.keys.policy import MAX_METADATA, MAX_NUMBER
from gateway.access.usage.period import SPANS
from gateway.api.openapi import SERVER_ERRORS, Schema, answer

ERRORS = {
    400: "The request is wrong; `message` and `param` say where.",
    401: "There is no API key, or it is not valid.",
    403: "The key does not have the admin scope.",
    404: "No key in force has this id.",
    408: "The body arrived too slowly.",
    413: "The body is too large.",
    431: "The headers are too large.",
    **SERVER_ERRORS,
}
DURATION: Schema = {"type": "string", "pattern": "^[0-9]{1,9}[smhdw]$", "examples": ["24h", "30d"]}
MOMENT: Schema = {"type": "string", "format": "date-time"}


def or_null(schema: Schema) -> Schema:
    return {"oneOf": [schema, {"type": "null"}]}


NUMBER = or_null({"type": "integer", "minimum": 1, "maximum": MAX_NUMBER})
TERMS: Schema = {
    "name": {"type": "string", "maxLength": 200},
    "models": {
        "type": "array",
        "items": {"type": "string", "minLength": 1, "maxLength": 200},
        "minItems": 1,
        "maxItems": 100,
        "description": "Globs; a model may be used if one of its names matches one of them.",
    },
    "requests_per_minute": NUMBER,
    "requests_burst": {**NUMBER, "description": "Requests at once after a rest; a sixth of a minute's where it is null."},
    "tokens_per_minute": NUMBER,
    "tokens_burst": {
        **NUMBER,
        "description": "Tokens at once after a rest, and at most in one request. Where it is null: a sixth of a minute's, or"
        " 300,000 (or the whole limit) if that is more, and one request may have up to a whole minute's.",
    },
    "max_concurrent_requests": NUMBER,
    "token_budget": NUMBER,
    "budget_period": {"enum": ["day", "month"]},
    "expires_at": or_null(MOMENT),
    "is_admin": {"type": "boolean"},
    "metadata": {"type": "object", "maxProperties": MAX_METADATA, "additionalProperties": {"type": "string", "maxLength": 512}},
}
KEY: Schema = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "state": {"enum": ["active", "expired", "revoked"]},
        **TERMS,
        "created_at": MOMENT,
        "revoked_at": or_null(MOMENT),
        "old_secret_until": or_null(MOMENT),
    },
}
KEY["required"] = list(KEY["properties"])
AUDIT_EVENT: Schema = {
    "type": "object",
    "required": ["at", "actor", "action", "key", "detail"],
    "properties": {
        "at": MOMENT,
        "actor": {"type": "string", "description": "`cli:` and a user of the machine, or `key:` and an admin's id."},
        "action": {"enum": ["create", "limit", "revoke", "rotate"]},
        "key": {"type": "string"},
        "detail": {"type": "object"},
    },
}
USAGE: Schema = {
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in ("key", "model", "period")},
        **{name: {"type": "integer", "minimum": 0} for name in ("requests", "inputs", "tokens", "cached_tokens")},
    },
}
USAGE["required"] = list(USAGE["properties"])


def reference(schema: str) -> Schema:
    return {"$ref": f"#/components/schemas/{schema}"}


def page_of(schema: str) -> Schema:
    return {
        "type": "object",
        "required": ["object", "data", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": reference(schema)},
            "has_more": {"type": "boolean"},
        },
    }


SCHEMAS: Schema = {
    "AdminKey": KEY,
    "AdminKeyWithSecret": {
        "allOf": [reference("AdminKey")],
        "required": ["key"],
        "properties": {"key": {"type": "string", "description": "The key itself. It is shown this once."}},
    },
    "AdminKeyWithHistory": {
        "allOf": [reference("AdminKey")],
        "required": ["history"],
        "properties": {"history": {"type": "array", "items": reference("AdminAuditEvent"), "description": "The last first."}},
    },
    "AdminKeys": page_of("AdminKey"),
    "AdminAuditEvent": AUDIT_EVENT,
    "AdminUsage": page_of("AdminUsageRow"),
    "AdminUsageRow": USAGE,
}


def operation(name: str, summary: str, schema: str, *, status: int = 200, **more: Any) -> Schema:
    """Every error there is may be answered."""
    return {
        "operationId": name,
        "tags": ["admin"],
        "summary": summary,
        "responses": {
            str(status): answer("Done.", schema),
            **{str(code): answer(words, "Error") for code, words in ERRORS.items()},
        },
        **more,
    }


def body(properties: Schema) -> Schema:
    """An object of these, each of which may be left out; or nothing at all."""
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"required": False, "content": {"application/json": {"schema": schema}}}


def query(parameters: Schema) -> list[Schema]:
    return [{"name": name, "in": "query", "schema": schema} for name, schema in parameters.items()]


def counting(most: int, default: int, *, least: int = 1) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most, "default": default}


def paths() -> Schema:
    public_id = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    pages = {"limit": counting(1000, 100)}
    of_usage = {
        "key_id": {"type": "string", "description": "Only this key's."},
        "by": {"enum": list(SPANS), "default": "day"},
        "since": {**DURATION, "default": "30d"},
        **pages,
        "offset": counting(1_000_000, 0, least=0),
    }
    return {
        "/admin/keys": {
            "get": operation(
                "listKeys", "List keys, the oldest first", "AdminKeys", parameters=query({**pages, "after": {"type": "string"}})
            ),
            "post": operation(
                "createKey", "Make a key; it is shown this once", "AdminKeyWithSecret", status=201, requestBody=body(TERMS)
            ),
        },
        "/admin/keys/{id}": {
            "parameters": [public_id],
            "get": operation("getKey", "A key, and what was done to it", "AdminKeyWithHistory"),
            "patch": operation("limitKey", "Change some terms of a key", "AdminKey", requestBody=body(TERMS)),
        },
        "/admin/keys/{id}/revoke": {
            "parameters": [public_id],
            "post": operation("revokeKey", "Revoke a key; every gateway refuses it within two seconds", "AdminKey"),
        },
        "/admin/keys/{id}/rotate": {
            "parameters": [public_id],
            "post": operation(
                "rotateKey", "Give a key a new secret; the old one works until the grace is over", "AdminKeyWithSecret",
                requestBody=body({"grace": {**DURATION, "default": "24h"}}),
            ),
        },
        "/admin/usage": {
            "get": operation("getUsage", "What keys used, by key, model and period", "AdminUsage", parameters=query(of_usage))
        },
    }  # fmt: skip


def with_admin(document: Schema) -> Schema:
    """The document with the admin paths beside the others."""
    components: dict[str, Any] = document["components"]
    return {
        **document,
        "tags": [*document["tags"], {"name": "admin"}],
        "paths": {**document["paths"], **paths()},
        "components": {**components, "schemas": {**components["schemas"], **SCHEMAS}},
    }
