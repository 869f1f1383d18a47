"""The audit trail: who did what to which key, and when. Written with the change itself, or not at all; never a secret."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sql

from gateway.access.database import Database
from gateway.access.keys.policy import iso
from gateway.access.schema import audit_table

MAX_ACTOR_CHARS = 120


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """`actor` is `cli:` and an operating system's user, or `key:` and an admin's public id."""

    at: datetime
    actor: str
    action: str
    key_id: str
    detail: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {"at": iso(self.at), "actor": self.actor, "action": self.action, "key": self.key_id, "detail": self.detail}


def write(connection: sql.Connection, event: AuditEvent) -> None:
    """Of metadata only the names are kept: what operators put there is theirs."""
    told = {name: sorted(value) if name == "metadata" else value for name, value in event.detail.items()}
    row = {"at": event.at, "actor": event.actor[:MAX_ACTOR_CHARS], "action": event.action, "key_id": event.key_id}
    connection.execute(audit_table.insert().values(**row, detail=msgspec.json.encode(told).decode()))


def history(database: Database, key_id: str | None = None, *, limit: int) -> list[AuditEvent]:
    """The latest events, the last one first; of one key or of all."""
    chosen = audit_table.select().order_by(audit_table.c.number.desc()).limit(limit)
    if key_id is not None:
        chosen = chosen.where(audit_table.c.key_id == key_id)
    with database.read() as connection:
        return [
            AuditEvent(row.at, row.actor, row.action, row.key_id, msgspec.json.decode(row.detail))
            for row in connection.execute(chosen)
        ]
