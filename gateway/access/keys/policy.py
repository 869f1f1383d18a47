"""The policy of a key, as an operator sets it: one check for both the command line and the admin API."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, get_type_hints, overload

import msgspec
from msgspec import Meta, field

from gateway.access.keys.key import EVERY_MODEL, Allowance

MAX_METADATA = 16  # pairs of at most 64 and 512 characters: OpenAI's bounds

# The part of "printable" that JSON Schema can express; `policy_of` refuses more.
PRINTABLE = {"pattern": "^[^\\u0000-\\u001f\\u007f]*$"}
Moment = Annotated[datetime, Meta(tz=True)]
ModelGlob = Annotated[str, Meta(min_length=1, max_length=200, extra_json_schema=PRINTABLE)]
MetadataName = Annotated[str, Meta(min_length=1, max_length=64, extra_json_schema=PRINTABLE)]
MetadataText = Annotated[str, Meta(max_length=512, extra_json_schema=PRINTABLE)]
RATE_OF_BURST = {"requests_burst": "requests_per_minute", "tokens_burst": "tokens_per_minute"}  # a burst needs its rate


class InvalidPolicy(ValueError):
    """A policy with an invalid field, named by `field`. The text is for the person who set it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field


class KeyPolicy(Allowance, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting of a key."""

    name: Annotated[str, Meta(max_length=200, description="What the key is for.", extra_json_schema=PRINTABLE)] = "default"
    models: Annotated[
        tuple[ModelGlob, ...],
        Meta(min_length=1, max_length=100, description="The models it may use, as globs over names and aliases; '*' is every one."),
    ] = EVERY_MODEL
    expires_at: Annotated[Moment | None, Meta(description="When it ends; never if not given.")] = None
    is_admin: Annotated[bool, Meta(description="Whether it may use /admin.")] = False
    metadata: Annotated[dict[MetadataName, MetadataText], Meta(max_length=MAX_METADATA, description="Your own notes.")] = field(
        default_factory=dict
    )

    @property
    def allowance(self) -> Allowance:
        return Allowance(*(getattr(self, name) for name in ALLOWANCE_FIELDS))


ALLOWANCE_FIELDS = Allowance.__struct_fields__
FIELDS = tuple(each.name for each in msgspec.structs.fields(KeyPolicy))


def description_of(name: str) -> str:
    """Returns the help text of a field of KeyPolicy."""
    hint = get_type_hints(KeyPolicy, include_extras=True)[name]
    return next(each.description for each in hint.__metadata__ if isinstance(each, Meta) and each.description)


def policy_of(table: Mapping[str, Any], before: KeyPolicy | None = None) -> KeyPolicy:
    """Checks a policy: fields of `table`, then those of `before`, then defaults. Raises InvalidPolicy."""
    for name in table:
        if name not in FIELDS:
            raise InvalidPolicy(name[:64], f"unknown; known are {', '.join(FIELDS)}")
    try:
        given = {name: _whole_number(value) for name, value in table.items()}
        whole = msgspec.convert({**(as_table(before) if before else {}), **given}, KeyPolicy)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).replace("`key` in ", "").partition(" - at ")
        raise InvalidPolicy(path.strip("`").removeprefix("$.").partition("[")[0], reason.replace("`", "")) from None
    for text in (whole.name, *whole.models, *whole.metadata, *whole.metadata.values()):
        if not text.isprintable():
            raise InvalidPolicy("", "names, models and metadata hold printable characters only")
    for burst, rate in RATE_OF_BURST.items():
        if getattr(whole, burst) is not None and getattr(whole, rate) is None:
            raise InvalidPolicy(burst, f"there is no {rate} that it could be the burst of")
    return whole


def _whole_number(value: Any) -> Any:
    """Turns 5.0 into 5, which is an integer in JSON Schema. Other values are unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_table(policy: KeyPolicy) -> dict[str, Any]:
    """Returns the policy as plain JSON values, with times in ISO 8601, UTC."""
    table: dict[str, Any] = msgspec.to_builtins(policy)
    return {**table, "models": list(policy.models), "expires_at": iso(policy.expires_at)}


def iso(moment: datetime | None) -> str | None:
    """Formats a time as `2026-11-25T08:00:00Z`. A time without a zone is UTC."""
    shown = as_seconds(moment)
    return None if shown is None else shown.isoformat().replace("+00:00", "Z")


@overload
def as_seconds(moment: datetime) -> datetime: ...
@overload
def as_seconds(moment: datetime | None) -> datetime | None: ...
def as_seconds(moment: datetime | None) -> datetime | None:
    """Converts a time to UTC and whole seconds. A time without a zone is UTC."""
    if moment is None:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.replace(microsecond=0)
