"""The rows of batches. Every method may block, and raises KeyStoreUnavailable if the database fails.

A lease says which gateway works on a batch, and until when by the database's clock. The next holder's lease has the next number.
Each write of a holder names its number, in the same transaction as what it writes: a gateway that was taken for dead, and lives on,
writes nothing more. So no request is answered twice, and none is lost.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sql

from gateway.access.database import Database
from gateway.access.keys.audit import BATCH_ACTIONS, Action, AuditEvent, write
from gateway.access.schema import audit_table, batches_table, shards_table
from gateway.batches.job import ENDED, JSON_COLUMNS, BatchJob, Ending, ShardFiles, ending_time
from gateway.errors import BatchEnded, RateLimited, UnknownBatch

OWNER_LOCK = 0x62617463  # "batc": any number that no other program takes
MAX_CLAIMABLE = 1000  # rows that are weighed for one claim
FULL_WAIT_SECONDS = 60.0
row = batches_table.c


class LeaseLost(Exception):
    """Another gateway has the batch now, or it was deleted. Nothing was written."""


class BatchStore:
    """`clock` gives Unix seconds, for the times that clients see."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self.clock = clock
        self.now = _seconds_of(database)

    def add(self, job: BatchJob, *, max_unfinished: int) -> BatchJob:
        """Adds a new batch. Raises RateLimited if the owner has `max_unfinished` already."""
        with self.database.write() as connection:
            if self.database.path is None:
                lock = sql.func.pg_advisory_xact_lock(sql.literal(OWNER_LOCK, sql.Integer), sql.func.hashtext(job.owner))
                connection.execute(sql.select(lock))
            unfinished = sql.select(sql.func.count()).where(row.owner == job.owner, row.status.not_in(ENDED))
            if (found := int(connection.execute(unfinished).scalar_one())) >= max_unfinished:
                what = f"unfinished batches: limit {max_unfinished}, there are {found}"
                raise RateLimited("requests", what, wait_seconds=FULL_WAIT_SECONDS)
            connection.execute(batches_table.insert().values(**_columns_of(msgspec.structs.asdict(job))))
            self.audit(connection, job, "batch_create", by=f"key:{job.owner}")
        return job

    def find(self, batch_id: str, owner: str | None = None) -> BatchJob:
        """Returns a batch; of any owner if `owner` is None. Raises UnknownBatch."""
        with self.database.read() as connection:
            return _find(connection, batch_id, owner)

    def page(self, owner: str | None, *, limit: int, after: str | None = None) -> list[BatchJob]:
        """Returns batches, the newest first, beginning behind `after`. Raises UnknownBatch if `after` is unknown."""
        chosen = batches_table.select().order_by(row.created_at.desc(), row.id.desc()).limit(limit)
        if owner is not None:
            chosen = chosen.where(row.owner == owner)
        with self.database.read() as connection:
            if after is not None:
                last = _find(connection, after, owner)
                place = sql.tuple_(row.created_at, row.id)
                chosen = chosen.where(place < sql.tuple_(sql.literal(last.created_at), sql.literal(after)))
            return [_job_of(each) for each in connection.execute(chosen)]

    def cancel(self, batch_id: str, owner: str | None, *, by: str) -> BatchJob:
        """Asks for the end of a batch; one that is ending already is returned as it is. Raises UnknownBatch, and BatchEnded.

        `by` is the actor in the audit trail: `cli:` and a user, or `key:` and a public id.
        """
        with self.database.write() as connection:
            job = _find(connection, batch_id, owner)
            if job.status == "cancelling":
                return job
            if job.status in ENDED or job.ending is not None:
                raise BatchEnded(job.status)
            values = {"status": "cancelling", "cancelling_at": int(self.clock())}
            changed = connection.execute(
                batches_table.update().where(row.id == batch_id, row.status == job.status, row.ending.is_(None)).values(**values)
            ).rowcount
            if not changed:  # on PostgreSQL another transaction may have changed it since it was read
                raise BatchEnded(_find(connection, batch_id, owner).status)
            self.audit(connection, job, "batch_cancel", by=by)
            return _find(connection, batch_id, owner)

    def claimable(self) -> tuple[list[BatchJob], dict[str, int]]:
        """Returns the unfinished batches that nobody works on, and how many of each owner are worked on.

        If there are more than MAX_CLAIMABLE, it is the oldest of each owner, so that no owner's many batches hide the others'.
        """
        unfinished = batches_table.select().where(row.status.not_in(ENDED))
        place = sql.func.row_number().over(partition_by=row.owner, order_by=(row.created_at, row.id))
        free = unfinished.where(row.lease_until <= self.now).order_by(place, row.created_at, row.id).limit(MAX_CLAIMABLE)
        taken = (
            sql.select(row.owner, sql.func.count()).where(row.status.not_in(ENDED), row.lease_until > self.now).group_by(row.owner)
        )
        with self.database.read() as connection:
            jobs = [_job_of(each) for each in connection.execute(free)]
            return jobs, {owner: int(number) for owner, number in connection.execute(taken)}

    def seconds_free(self, job: BatchJob) -> float:
        """For how long nobody has worked on a batch."""
        with self.database.read() as connection:
            return float(connection.execute(sql.select(self.now - row.lease_until).where(row.id == job.id)).scalar() or 0.0)

    def claim(self, job: BatchJob, gateway: str, *, seconds: float) -> BatchJob | None:
        """Takes the lease of a batch that nobody works on. Returns it as it is now, or None if another gateway was faster."""
        with self.database.write() as connection:
            is_free = (row.id == job.id) & (row.lease_number == job.lease_number) & (row.lease_until <= self.now)
            is_free &= row.status.not_in(ENDED)
            values = {"lease_owner": gateway, "lease_until": self.now + seconds, "lease_number": job.lease_number + 1}
            if not connection.execute(batches_table.update().where(is_free).values(**values)).rowcount:
                return None
            return _find(connection, job.id, None)

    def renew(self, job: BatchJob, *, seconds: float) -> BatchJob:
        """Extends the lease. Returns the batch as it is now, perhaps cancelled. Raises LeaseLost."""
        return self.update(job, lease_until=self.now + seconds)

    def release(self, job: BatchJob) -> None:
        """Gives the lease back, so that any gateway may go on at once. Raises LeaseLost."""
        self.update(job, lease_owner=None, lease_until=self.now)

    def update(self, job: BatchJob, **values: Any) -> BatchJob:
        """Writes some columns of a leased batch. Returns it as it is now. Raises LeaseLost."""
        with self.leased(job) as connection:
            self.write(connection, job, values)
            return _find(connection, job.id, None)

    def begin(self, job: BatchJob, **values: Any) -> BatchJob:
        """Makes a validated batch "in_progress", unless it is being cancelled. Returns it as it is now. Raises LeaseLost."""
        with self.leased(job) as connection:
            self.write(connection, job, values)
            begun = batches_table.update().where(row.id == job.id, row.status == "validating")
            connection.execute(begun.values(status="in_progress", in_progress_at=int(self.clock())))
            return _find(connection, job.id, None)

    def decide(self, job: BatchJob, ending: Ending, **values: Any) -> BatchJob:
        """Decides how a batch ends, once: from now on no request is answered. Returns it as it is now. Raises LeaseLost.

        A client's cancellation that came before wins. A batch that was never begun goes to its end without "finalizing".
        """
        with self.leased(job) as connection:
            found = _find(connection, job.id, None)
            if found.ending is None:
                is_cancelled = found.status == "cancelling"
                begun = {"status": "finalizing", "finalizing_at": int(self.clock())} if found.status == "in_progress" else {}
                self.write(connection, job, {"ending": "cancelled"} if is_cancelled else {"ending": ending, **values, **begun})
            return _find(connection, job.id, None)

    def append(self, job: BatchJob, shard: ShardFiles, **values: Any) -> BatchJob:
        """Writes a finished shard, with the columns that change with it. Returns the batch as it is now. Raises LeaseLost.

        A shard that was written before is left as it is: the acknowledgement of the first attempt was lost.
        """
        with self.leased(job) as connection:
            now = _find(connection, job.id, None)
            if now.num_shards == shard.number:
                parts = {"output_part": shard.output, "error_part": shard.error}
                connection.execute(shards_table.insert().values(batch_id=job.id, number=shard.number, **parts))
                self.write(connection, job, {**values, "num_shards": shard.number + 1})
            return _find(connection, job.id, None)

    def end(self, job: BatchJob, status: Ending, **values: Any) -> BatchJob:
        """Ends a batch as decided, and gives its lease back. Raises LeaseLost."""
        with self.leased(job) as connection:
            ended = {"status": status, ending_time(status): int(self.clock()), "lease_owner": None, "lease_until": self.now}
            self.write(connection, job, {**values, **ended})
            return _find(connection, job.id, None)

    def shards(self, job: BatchJob) -> list[ShardFiles]:
        chosen = shards_table.select().where(shards_table.c.batch_id == job.id).order_by(shards_table.c.number)
        with self.database.read() as connection:
            return [ShardFiles(each.number, each.output_part, each.error_part) for each in connection.execute(chosen)]

    def forget_shards(self, job: BatchJob) -> None:
        """Removes the rows of an ended batch's shards."""
        with self.database.write() as connection:
            connection.execute(shards_table.delete().where(shards_table.c.batch_id == job.id))

    def counts(self) -> dict[str, int]:
        """Returns the number of unfinished batches by status."""
        chosen = sql.select(row.status, sql.func.count()).where(row.status.not_in(ENDED)).group_by(row.status)
        with self.database.read() as connection:
            return {status: int(number) for status, number in connection.execute(chosen)}

    def unreported(self, *, limit: int) -> list[BatchJob]:
        """Returns ended batches that the webhook has not heard of, the oldest first."""
        chosen = batches_table.select().where(row.status.in_(ENDED), row.is_reported.is_(False))
        with self.database.read() as connection:
            return [_job_of(each) for each in connection.execute(chosen.order_by(row.created_at).limit(limit))]

    def mark_reported(self, job: BatchJob) -> None:
        with self.database.write() as connection:
            connection.execute(batches_table.update().where(row.id == job.id).values(is_reported=True))

    def audit(self, connection: sql.Connection, job: BatchJob, action: Action, *, by: str) -> None:
        at = datetime.fromtimestamp(self.clock(), UTC).replace(tzinfo=None)
        write(connection, AuditEvent(at, by, action, job.owner, {"batch": job.id, "file": job.input_file_id}))

    def prune(self, *, before: int) -> None:
        """Deletes the batches that ended and were made before this time, and what the audit trail has of batches before it."""
        at = datetime.fromtimestamp(before, UTC).replace(tzinfo=None)
        old = sql.select(row.id).where(row.status.in_(ENDED), row.created_at < before)
        with self.database.write() as connection:
            connection.execute(shards_table.delete().where(shards_table.c.batch_id.in_(old)))
            connection.execute(batches_table.delete().where(row.status.in_(ENDED), row.created_at < before))
            connection.execute(audit_table.delete().where(audit_table.c.action.in_(BATCH_ACTIONS), audit_table.c.at < at))

    @contextmanager
    def leased(self, job: BatchJob) -> Iterator[sql.Connection]:
        """A transaction that only the holder of the latest lease gets: it locks the row. Raises LeaseLost."""
        with self.database.write() as connection:
            mine = sql.select(row.id).where(row.id == job.id, row.lease_number == job.lease_number, row.status.not_in(ENDED))
            if connection.execute(mine.with_for_update()).first() is None:
                raise LeaseLost(job.id)
            yield connection

    def write(self, connection: sql.Connection, job: BatchJob, values: Mapping[str, Any]) -> None:
        connection.execute(batches_table.update().where(row.id == job.id).values(**_columns_of(values)))


def _find(connection: sql.Connection, batch_id: str, owner: str | None) -> BatchJob:
    if not batch_id.isprintable():
        raise UnknownBatch(batch_id)  # PostgreSQL takes no NUL in a text
    found = connection.execute(batches_table.select().where(row.id == batch_id)).first()
    if found is None or owner not in {None, found.owner}:
        raise UnknownBatch(batch_id)
    return _job_of(found)


def _job_of(found: Any) -> BatchJob:
    values = {name: value for name, value in found._mapping.items() if value is not None}  # noqa: SLF001 - its public name
    for name, kind in JSON_COLUMNS.items():
        if name in values:
            values[name] = msgspec.json.decode(values[name], type=kind)
    return BatchJob(**values)


def _columns_of(values: Mapping[str, Any]) -> dict[str, Any]:
    columns = dict(values)
    for name in JSON_COLUMNS.keys() & columns.keys():
        columns[name] = None if columns[name] is None else msgspec.json.encode(columns[name]).decode()
    return columns


def _seconds_of(database: Database) -> sql.ColumnElement[float]:
    """The database's own clock, in Unix seconds."""
    if database.path is None:
        return sql.cast(sql.extract("epoch", sql.func.clock_timestamp()), sql.Double)
    return (sql.func.julianday("now") - 2440587.5) * 86400.0  # the Julian day of 1970
