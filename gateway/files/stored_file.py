"""A file as its row has it, and the ids of files."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.access.keys.key import BASE62

ID_CHARS = 24  # 142 bits: nobody guesses an id


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file whose content is whole. `owner` is the public id of the key that made it, `blob` the content's name in the storage.

    Times are in Unix seconds; without `expires_at` it stays until it is deleted.
    """

    id: str
    owner: str
    purpose: str
    filename: str
    num_bytes: int
    created_at: float
    expires_at: float | None
    blob: str


def new_file_id() -> str:
    return "file-" + random_name()


def random_name() -> str:
    return "".join(secrets.choice(BASE62) for _ in range(ID_CHARS))


def moment(seconds: float) -> datetime:
    """Unix seconds as the database has them: UTC, without a time zone."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def seconds_of(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()
