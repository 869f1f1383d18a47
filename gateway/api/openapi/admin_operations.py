"""The OpenAPI operations of the admin routes, by method and path."""

from typing import Any

from gateway.access.keys.audit import AuditView
from gateway.access.keys.key_record import KeyView
from gateway.access.keys.policy import RATE_OF_BURST, KeyPolicy
from gateway.access.usage.store import UsageTotals
from gateway.api.admin import CREATED
from gateway.api.admin_schema import (
    AFTER,
    BY,
    KEY_ID,
    LIMIT,
    OFFSET,
    SINCE,
    KeyPage,
    KeyRotation,
    KeyWithHistory,
    KeyWithSecret,
    UsagePage,
)
from gateway.api.error_format import JSON
from gateway.api.openapi.json_schema import Schema, reference
from gateway.api.openapi.operation import Errors, Operation
from gateway.api.openapi.operations import OF_A_BODY, path_parameter
from gateway.errors import InsufficientPermissions, UnknownKey

ADMIN_PARSED = (KeyPolicy, KeyRotation)
ADMIN_SERVED = (KeyView, KeyWithSecret, KeyWithHistory, KeyPage, AuditView, UsagePage, UsageTotals)
# JSON Schema for what `policy_of` checks of a whole policy. Not for a PATCH: the key may already have what it leaves out.
NEEDS_RATE = [
    {"anyOf": [{"properties": {burst: {"type": "null"}}}, {"required": [rate], "properties": {rate: {"type": "integer"}}}]}
    for burst, rate in RATE_OF_BURST.items()
]
PUBLIC_ID = path_parameter("id", "Of a key, as the list of keys has it.")


def body(kind: type, *also: Schema) -> Schema:
    """Returns a request body of which every field may be left out, and the whole body too."""
    schema = {"allOf": [reference(kind), *also]} if also else reference(kind)
    return {"required": False, "content": {JSON: {"schema": schema}}}


def operation(name: str, summary: str, reply: type, *, errors: Errors = (), **more: Any) -> Operation:
    errors = (InsufficientPermissions, *errors, *(OF_A_BODY if "body" in more else ()))
    return Operation(name=name, tag="admin", summary=summary, reply=reply, errors=errors, **more)


def of_key(name: str, summary: str, reply: type, **more: Any) -> Operation:
    return operation(name, summary, reply, errors=(UnknownKey,), parameters=(PUBLIC_ID,), **more)


ADMIN_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/admin/keys"): operation(
        "listKeys", "List keys, the oldest first", KeyPage, errors=(UnknownKey,), parameters=(LIMIT.describe(), AFTER.describe())
    ),
    ("POST", "/admin/keys"): operation(
        "createKey", "Make a key; it is shown this once", KeyWithSecret, status=CREATED, body=body(KeyPolicy, *NEEDS_RATE)
    ),
    ("GET", "/admin/keys/{public_id:str}"): of_key("getKey", "A key, and what was done to it", KeyWithHistory),
    ("PATCH", "/admin/keys/{public_id:str}"): of_key("limitKey", "Change what a key may do", KeyView, body=body(KeyPolicy)),
    ("POST", "/admin/keys/{public_id:str}/revoke"): of_key(
        "revokeKey", "Revoke a key; every gateway refuses it within two seconds", KeyView
    ),
    ("POST", "/admin/keys/{public_id:str}/rotate"): of_key(
        "rotateKey",
        "Give a key a new secret; the old one works until the grace is over",
        KeyWithSecret,
        body=body(KeyRotation),
    ),
    ("GET", "/admin/usage"): operation(
        "getUsage",
        "What keys used, by key, model and period",
        UsagePage,
        parameters=tuple(parameter.describe() for parameter in (KEY_ID, BY, SINCE, LIMIT, OFFSET)),
    ),
}
