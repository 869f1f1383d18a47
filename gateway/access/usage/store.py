"""The usage store: sums over all gateways of what each key used, by model and hour, and of what it spent of its budget."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, get_args

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite

from gateway.access.database import LONG_SILENCE_SECONDS, Database
from gateway.access.keys.key import BudgetPeriod
from gateway.access.schema import COUNTS, keys_table, spending_table, usage_table, writers_table
from gateway.access.usage.period import NUM_CHARS, Span, period_of

MAX_IN_QUERY = 500  # keys in one query: databases bound its parameters
BUDGET_SPANS: tuple[Span, ...] = get_args(BudgetPeriod)

ROWS_AT_ONCE = 1000  # written between two heartbeats
LAST_SILENCE_SECONDS = 2.0  # at a stop; SQLite keeps its longer one: it waits for a lock, and no connection of its can be dead

Spent = dict[tuple[str, str], int]  # by key and period, in tokens


@dataclass(frozen=True, slots=True)
class Stamp:
    """Identifies a batch, so that it is counted once: the writing process and a growing number. `hour` is when it is sent."""

    writer: str
    number: int
    hour: str


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """`period` is an hour, a day or a month in UTC, as `hour_of` writes it."""

    key: str
    model: str
    period: str
    requests: int
    inputs: int
    tokens: int
    cached_tokens: int


class UsageStore:
    """Every method may block: never call it on the event loop. Each raises OperatorError if the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(
        self,
        rows: Collection[UsageTotals],
        *,
        stamp: Stamp | None = None,
        keys: Collection[str] = (),
        periods: Collection[str] = (),
        is_last: bool = False,
    ) -> Spent:
        """Adds rows to the stored sums, all or none. Idempotent: a `stamp` that was written before adds nothing.

        With `is_last`, for a process that stops, a connection without an answer is given up sooner.

        All gateways write rows in the same order, so they cannot deadlock. Returns what `keys` spent in `periods`, these rows
        included.
        """
        silence_seconds = LAST_SILENCE_SECONDS if is_last and self.database.path is None else None
        with self.database.write(silence_seconds=silence_seconds) as connection:
            if rows and (stamp is None or is_new(connection, stamp)):
                self.upsert(
                    connection,
                    usage_table,
                    [_usage_row(row) for row in sorted(rows, key=lambda row: (row.key, row.period, row.model))],
                )
                self.upsert(connection, spending_table, _spending_rows(rows))
            found: Spent = {}
            for some in batches(keys, MAX_IN_QUERY):
                found |= _fetch_spent(connection, spending_table.c.key_id.in_(some), periods)
            return found

    def upsert(self, connection: sql.Connection, table: sql.Table, rows: list[dict[str, Any]]) -> None:
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            upsert(connection, table, rows[begin : begin + ROWS_AT_ONCE])
            self.database.goes_on()

    def budgets(self, periods: Collection[str]) -> Spent:
        """Returns what each key with a budget spent in `periods`."""
        with_budget = sql.select(keys_table.c.public_id).where(keys_table.c.token_budget.is_not(None))
        with self.database.read() as connection:
            return _fetch_spent(connection, spending_table.c.key_id.in_(with_budget), periods)

    def report(self, *, by: Span, since: str, key: str | None = None, limit: int, offset: int = 0) -> list[UsageTotals]:
        """Returns sums from the hour `since` on, by period, key and model, oldest first."""
        # Literals, not parameters: with those PostgreSQL would not see that both uses of `period` are the same expression.
        num_chars: sql.ColumnElement[int] = sql.literal_column(str(NUM_CHARS[by]))
        period = sql.func.substr(usage_table.c.hour, sql.literal_column("1"), num_chars)
        sums = [sql.cast(sql.func.sum(usage_table.c[name]), sql.BigInteger) for name in COUNTS]
        group = (period, usage_table.c.key_id, usage_table.c.model)
        chosen = sql.select(usage_table.c.key_id, usage_table.c.model, period, *sums).where(usage_table.c.hour >= since)
        if key is not None:
            chosen = chosen.where(usage_table.c.key_id == key)
        chosen = chosen.group_by(*group).order_by(*group).limit(limit).offset(offset)
        with self.database.read(silence_seconds=LONG_SILENCE_SECONDS) as connection:
            return [UsageTotals(*row) for row in connection.execute(chosen)]

    def prune(self, before: str) -> int:
        """Deletes everything older than the hour `before`. Returns the number of deleted usage rows."""
        with self.database.write(silence_seconds=LONG_SILENCE_SECONDS) as connection:
            connection.execute(writers_table.delete().where(writers_table.c.hour < before))
            connection.execute(spending_table.delete().where(spending_table.c.period < period_of("month", before)))
            return connection.execute(usage_table.delete().where(usage_table.c.hour < before)).rowcount


def is_new(connection: sql.Connection, stamp: Stamp) -> bool:
    """Marks the batch as written. Returns whether it was new. A concurrent second try waits here for the first."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement: Any = insert(writers_table)
    first = {"writer": stamp.writer, "number": 0, "hour": stamp.hour}
    connection.execute(statement.on_conflict_do_nothing(), first)
    mine = writers_table.c.writer == stamp.writer
    number = connection.execute(sql.select(writers_table.c.number).where(mine).with_for_update()).scalar_one()
    if number >= stamp.number:
        return False
    connection.execute(writers_table.update().where(mine).values(number=stamp.number, hour=stamp.hour))
    return True


def batches(keys: Collection[str], size: int) -> Iterator[list[str]]:
    rest = iter(keys)
    while some := list(islice(rest, size)):
        yield some


def _usage_row(row: UsageTotals) -> dict[str, Any]:
    return {"key_id": row.key, "hour": row.period, "model": row.model, **{name: getattr(row, name) for name in COUNTS}}


def _spending_rows(rows: Iterable[UsageTotals]) -> list[dict[str, Any]]:
    sums: Spent = {}
    for row in rows:
        for span in BUDGET_SPANS:
            place = row.key, period_of(span, row.period)
            sums[place] = sums.get(place, 0) + row.tokens
    return [{"key_id": key, "period": period, "tokens": tokens} for (key, period), tokens in sorted(sums.items())]


def upsert(connection: sql.Connection, table: sql.Table, rows: list[dict[str, Any]]) -> None:
    """Inserts rows, or adds to those that exist. The database does the addition, as several gateways write at once."""
    is_postgres = connection.dialect.name == "postgresql"
    statement: Any = (postgresql.insert if is_postgres else sqlite.insert)(table)
    added = {name: table.c[name] + statement.excluded[name] for name in COUNTS if name in table.c}
    connection.execute(statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=added), rows)
    if is_postgres:
        # psycopg sends many rows as a pipeline. Its final Flush stops PostgreSQL's clock for idle transactions: if the connection
        # were lost now, the rows' locks would be kept for ever. A single statement starts the clock again.
        connection.exec_driver_sql("SELECT 1")


def _fetch_spent(connection: sql.Connection, keys: "sql.ColumnElement[bool]", periods: Collection[str]) -> Spent:
    rows = connection.execute(spending_table.select().where(keys, spending_table.c.period.in_(periods)))
    return {(row.key_id, row.period): row.tokens for row in rows}
