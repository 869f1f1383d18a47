"""A batch as its row has it, and the ids of batches."""

import secrets
from typing import Any, Literal

from msgspec import Struct

from gateway.access.keys.key import BASE62
from gateway.bulk.row import Position
from gateway.wire.batches import BatchStatus, Endpoint, InputFormat

Ending = Literal["completed", "failed", "expired", "cancelled"]
ENDED: tuple[BatchStatus, ...] = ("completed", "failed", "expired", "cancelled")
ID_CHARS = 24  # 142 bits: nobody guesses an id


class LineError(Struct, frozen=True):
    """Why a batch failed: an error of a line, which counts from 1, or of the whole file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchJob(Struct, frozen=True, kw_only=True):
    """One row. Times are Unix seconds. `position` is where the next shard begins, `num_shards` how many are done.
    Once `ending` is set, which is the status that it will have, no request is answered any more: its files are made.

    `fingerprints` are those of the models, by the names that the requests have: a model's own, and after spaces those that mean the
    same vectors; None until the file was validated. The file
    `lines_file_id` belongs to the batch, and has the input's requests, one a line; None if the input has them so itself.
    """

    id: str
    owner: str
    endpoint: Endpoint
    input_file_id: str
    completion_window: str
    status: BatchStatus
    ending: Ending | None = None
    created_at: int
    expires_at: int
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    model: str | None = None
    default_model: str | None = None
    fingerprints: dict[str, str] | None = None
    metadata: dict[str, str] | None = None
    output_expires_seconds: int | None = None
    errors: tuple[LineError, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    position: Position = Position()
    num_shards: int = 0
    lease_owner: str | None = None
    lease_until: float = 0.0
    lease_number: int = 0
    is_reported: bool = False
    input_format: InputFormat | None = None
    lines_file_id: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


class ShardFiles(Struct, frozen=True):
    """The files with the replies of one shard, by their ids; None if it has no such replies."""

    number: int
    output: str | None
    error: str | None


def new_batch_id() -> str:
    return "batch_" + "".join(secrets.choice(BASE62) for _ in range(ID_CHARS))


def ending_time(status: Ending) -> str:
    """The name of the column that has the time of this end."""
    return f"{status}_at"


JSON_COLUMNS: dict[str, Any] = {
    "fingerprints": dict[str, str] | None,
    "metadata": dict[str, str] | None,
    "errors": tuple[LineError, ...],
    "position": Position,
    "input_format": InputFormat | None,
}
