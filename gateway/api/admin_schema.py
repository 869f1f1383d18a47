"""The request and response bodies of the admin API, except the key policy. Served by `admin`, described in /openapi.json."""

from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from gateway.access.keys.audit import AuditView
from gateway.access.keys.key_record import KeyView
from gateway.access.usage.period import DURATION_PATTERN, Span
from gateway.access.usage.store import UsageTotals
from gateway.api.query import ChoiceParameter, IntegerParameter, SinceParameter, TextParameter

LIMIT = IntegerParameter(name="limit", default=100, most=1000, description="How many at most.")
OFFSET = IntegerParameter(name="offset", default=0, least=0, most=1_000_000, description="How many to leave out.")
AFTER = TextParameter("after", "The id of the last key of the page before.")
KEY_ID = TextParameter("key_id", "Only this key's.")
BY: ChoiceParameter[Span] = ChoiceParameter("by", "day", get_args(Span), "What to sum.")
SINCE = SinceParameter("since", "30d", "How far back; at most 36500d.")


class KeyRotation(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a rotation."""

    grace: Annotated[
        str,
        Meta(
            pattern=DURATION_PATTERN,
            description="How long the old secret works beside the new, at most 36500d; 0s ends it now.",
        ),
    ] = "24h"


class KeyWithSecret(KeyView, frozen=True, kw_only=True):
    """A key that was just created or rotated, with its secret."""

    key: Annotated[str, Meta(description="The key itself. It is shown this once.")]


class KeyWithHistory(KeyView, frozen=True, kw_only=True):
    """A key with its audit history."""

    history: Annotated[tuple[AuditView, ...], Meta(description="The last first.")]


class KeyPage(Struct, frozen=True, kw_only=True):
    """A page of keys."""

    object: Literal["list"] = "list"
    data: tuple[KeyView, ...]
    has_more: bool


class UsagePage(Struct, frozen=True, kw_only=True):
    """A page of usage totals."""

    object: Literal["list"] = "list"
    data: tuple[UsageTotals, ...]
    has_more: bool
