"""The audit trail: who did what to which key, and when. Each event is in the same transaction as its change; no secret is in it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sql
from msgspec import Meta, Struct

from gateway.access.database import Database
from gateway.access.keys.policy import Moment, as_seconds
from gateway.access.schema import audit_table

MAX_ACTOR_CHARS = 120


Action = Literal["create", "limit", "revoke", "rotate", "batch_create", "batch_cancel"]
BATCH_ACTIONS: tuple[Action, ...] = ("batch_create", "batch_cancel")  # by the key itself, or an operator


class AuditView(Struct, frozen=True):
    """An event, as JSON shows it."""

    at: Moment
    actor: Annotated[str, Meta(description="`cli:` and a user of the machine, or `key:` and an admin's id.")]
    action: Action
    key: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """`actor` is `cli:` and an operating system's user, or `key:` and an admin's public id."""

    at: datetime
    actor: str
    action: Action
    key_id: str
    detail: dict[str, Any]

    def view(self) -> AuditView:
        return AuditView(as_seconds(self.at), self.actor, self.action, self.key_id, self.detail)

    def to_dict(self) -> dict[str, Any]:
        """Returns the view as plain JSON values."""
        shown: dict[str, Any] = msgspec.to_builtins(self.view())
        return shown


def write(connection: sql.Connection, event: AuditEvent) -> None:
    """Writes the event. Of metadata only the names are stored: the values are the operator's own."""
    told = {name: sorted(value) if name == "metadata" else value for name, value in event.detail.items()}
    row = {"at": event.at, "actor": event.actor[:MAX_ACTOR_CHARS], "action": event.action, "key_id": event.key_id}
    connection.execute(audit_table.insert().values(**row, detail=msgspec.json.encode(told).decode()))


def history(database: Database, key_id: str | None = None, *, limit: int) -> list[AuditEvent]:
    """Returns the latest events of one key or of all, newest first."""
    chosen = audit_table.select().order_by(audit_table.c.number.desc()).limit(limit)
    if key_id is not None:
        chosen = chosen.where(audit_table.c.key_id == key_id)
    with database.read() as connection:
        return [
            AuditEvent(row.at, row.actor, row.action, row.key_id, msgspec.json.decode(row.detail))
            for row in connection.execute(chosen)
        ]
