"""A key as operators see it, and its conversion from and to a row."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.access.keys.key import EVERY_MODEL, Key
from gateway.access.keys.policy import ALLOWANCE_FIELDS, KeyPolicy, Moment, as_seconds

State = Literal["active", "expired", "revoked"]


class KeyView(KeyPolicy, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A key, as JSON shows it: its policy and its state, without a secret or digest."""

    id: str
    state: State
    created_at: Moment
    revoked_at: Moment | None
    old_secret_until: Annotated[Moment | None, Meta(description="When the secret before the last rotation expires.")]

    def fields(self) -> dict[str, Any]:
        """Returns the fields, to build a larger view."""
        return msgspec.structs.asdict(self)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """Times are UTC without a zone. `previous_until` is when the older secret ends, if there is one."""

    key: Key
    policy: KeyPolicy
    created_at: datetime
    revoked_at: datetime | None
    previous_until: datetime | None

    @property
    def state(self) -> State:
        if self.revoked_at is not None:
            return "revoked"
        expires_at = self.policy.expires_at
        return "expired" if expires_at is not None and expires_at <= datetime.now(UTC) else "active"

    def view(self) -> KeyView:
        is_old_secret_good = self.previous_until is not None and self.previous_until > datetime.now(UTC).replace(tzinfo=None)
        policy = msgspec.structs.asdict(self.policy) | {"expires_at": as_seconds(self.policy.expires_at)}
        return KeyView(
            **policy,
            id=self.key.public_id,
            state=self.state,
            created_at=as_seconds(self.created_at),
            revoked_at=as_seconds(self.revoked_at),
            old_secret_until=as_seconds(self.previous_until) if is_old_secret_good else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the view as plain JSON values, for people: identity and state first."""
        shown: dict[str, Any] = msgspec.to_builtins(self.view())
        first = {"id": self.key.public_id, "state": self.state, "name": self.policy.name, "models": list(self.policy.models)}
        return first | shown | {"models": list(self.policy.models)}


def columns_of(policy: KeyPolicy) -> dict[str, Any]:
    expires_at = policy.expires_at
    return {
        "name": policy.name,
        "models": None if policy.models == EVERY_MODEL else msgspec.json.encode(policy.models).decode(),
        "metadata": msgspec.json.encode(policy.metadata).decode() if policy.metadata else None,
        "expires_at": expires_at.astimezone(UTC).replace(tzinfo=None) if expires_at else None,
        "is_admin": policy.is_admin,
        **{name: getattr(policy, name) for name in ALLOWANCE_FIELDS},
    }


def key_record(row: Any) -> KeyRecord:
    """Makes a record from a whole row. Columns newer than the version that wrote the row are empty."""
    policy = KeyPolicy(
        name=row.name,
        models=msgspec.json.decode(row.models, type=tuple[str, ...]) if row.models else EVERY_MODEL,
        metadata=msgspec.json.decode(row.metadata, type=dict[str, str]) if row.metadata else {},
        expires_at=row.expires_at.replace(tzinfo=UTC) if row.expires_at else None,
        is_admin=bool(row.is_admin),
        **{name: getattr(row, name) for name in ALLOWANCE_FIELDS if name != "budget_period"},
        budget_period=row.budget_period or "month",
    )
    return KeyRecord(Key(row.public_id, row.digest), policy, row.created_at, row.revoked_at, row.previous_until)
