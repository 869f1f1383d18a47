"""The database's tables, and migrations from older versions. Migrations only add tables and columns.

Old and new versions run side by side during an upgrade: the old one reads and writes the columns it knows, and every new column
may be empty. `info` of a column or table has the step that added it. A step adds only what is missing, so it may run twice. A
change that old versions cannot read sets `readable_from`: they then refuse the database instead of guessing.
"""

from typing import Any, get_args, get_type_hints

import sqlalchemy as sql
from msgspec import Meta
from sqlalchemy.schema import CreateColumn

from gateway.access.keys.key import Allowance, BudgetPeriod
from gateway.errors import OperatorError

LATEST = 6
BATCH_STEPS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
BATCH_COUNTS = ("total", "completed", "failed", "input_tokens")
COUNTS = ("requests", "inputs", "tokens", "cached_tokens")  # the columns of usage_table that are summed

metadata = sql.MetaData()


def _added_column(name: str, kind: Any) -> sql.Column[Any]:
    """A column that step 2 added: empty in rows that older versions wrote."""
    return sql.Column(name, kind, info={"since": 2})


def _limit_columns() -> list[sql.Column[Any]]:
    """One column for each field of Allowance, added in the step that the field names."""
    columns: list[sql.Column[Any]] = []
    for name, hint in get_type_hints(Allowance, include_extras=True).items():
        [since] = [each.extra["since"] for each in hint.__metadata__ if isinstance(each, Meta) and each.extra]
        kind = sql.String(8) if get_args(hint)[0] is BudgetPeriod else sql.BigInteger()
        columns.append(sql.Column(name, kind, info={"since": since}))
    return columns


keys_table = sql.Table(
    "keys",
    metadata,
    sql.Column("public_id", sql.String(64), primary_key=True),
    sql.Column("name", sql.String(200), nullable=False),
    sql.Column("digest", sql.LargeBinary(32), nullable=False),
    sql.Column("created_at", sql.DateTime, nullable=False),  # UTC; SQLite stores no time zone
    sql.Column("revoked_at", sql.DateTime),
    _added_column("previous_digest", sql.LargeBinary(32)),
    _added_column("previous_until", sql.DateTime()),
    _added_column("expires_at", sql.DateTime()),
    _added_column("models", sql.Text()),  # a JSON list
    *_limit_columns(),
    _added_column("is_admin", sql.Boolean()),
    _added_column("metadata", sql.Text()),  # a JSON object
    _added_column("changed_in", sql.BigInteger()),  # the revision that wrote this row last
)
sql.Index("keys_changed_in", keys_table.c.changed_in)

# Every change of any version increments `number`. Changes that set `changed_in` in their rows increment `counted` too.
revision_table = sql.Table(
    "revision", metadata, sql.Column("number", sql.Integer, nullable=False), _added_column("counted", sql.BigInteger())
)
schema_table = sql.Table(
    "schema",
    metadata,
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("readable_from", sql.Integer, nullable=False),
    info={"since": 2},
)
usage_table = sql.Table(
    "usage",
    metadata,
    sql.Column("key_id", sql.String(64), primary_key=True),
    sql.Column("hour", sql.String(13), primary_key=True),  # 2026-11-25T08, UTC
    sql.Column("model", sql.Text, primary_key=True),
    *(sql.Column(name, sql.BigInteger, nullable=False) for name in COUNTS),
    info={"since": 2},
)
sql.Index("usage_hour", usage_table.c.hour)
# The sums of `usage` by day and by month, for budgets: one row has what a key has spent.
spending_table = sql.Table(
    "spending",
    metadata,
    sql.Column("key_id", sql.String(64), primary_key=True),
    sql.Column("period", sql.String(10), primary_key=True),  # 2026-11-25 or 2026-11
    sql.Column("tokens", sql.BigInteger, nullable=False),
    info={"since": 2},
)
# The last batch that each gateway process wrote: a batch whose commit was not acknowledged is sent again, and counted once.
writers_table = sql.Table(
    "usage_writers",
    metadata,
    sql.Column("writer", sql.String(32), primary_key=True),
    sql.Column("number", sql.BigInteger, nullable=False),  # of the last batch that was written
    sql.Column("hour", sql.String(13), nullable=False),  # of that write, UTC
    info={"since": 3},
)
audit_table = sql.Table(
    "audit",
    metadata,
    sql.Column("number", sql.Integer, primary_key=True),
    sql.Column("at", sql.DateTime, nullable=False),
    sql.Column("actor", sql.String(120), nullable=False),
    sql.Column("action", sql.String(20), nullable=False),
    sql.Column("key_id", sql.String(64), nullable=False),
    sql.Column("detail", sql.Text, nullable=False),  # a JSON object; never a secret
    info={"since": 2},
)
sql.Index("audit_key_id", audit_table.c.key_id)
# Files of /v1/files. A row is written before its content, as "pending", so that no content is ever without a row; a deleted file's
# row stays for a while, so that a list that is read page by page can go on behind it.
files_table = sql.Table(
    "files",
    metadata,
    sql.Column("blob", sql.String(64), primary_key=True),  # the name of the content in the storage
    sql.Column("id", sql.String(64)),  # empty until the content is whole
    sql.Column("owner", sql.String(64), nullable=False),  # the public id of a key
    sql.Column("state", sql.String(16), nullable=False),  # pending, ready or deleted
    sql.Column("purpose", sql.String(32), nullable=False),
    sql.Column("filename", sql.Text, nullable=False),
    sql.Column("bytes", sql.BigInteger, nullable=False),  # while pending: what is reserved of the owner's quota
    sql.Column("created_at", sql.DateTime, nullable=False),
    sql.Column("expires_at", sql.DateTime),  # when the sweeper may take the row, in any state
    info={"since": 4},
)
sql.Index("files_id", files_table.c.id, unique=True)
sql.Index("files_owner", files_table.c.owner, files_table.c.created_at)
sql.Index("files_expires_at", files_table.c.expires_at)
# Jobs of /v1/batches. Times are Unix seconds. A gateway works on a job while it holds its lease; each has the next number,
# and only the latest may write. Lease times are by the database's clock, as the gateways' clocks may differ.
batches_table = sql.Table(
    "batches",
    metadata,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("owner", sql.String(64), nullable=False),  # the public id of a key
    sql.Column("endpoint", sql.String(64), nullable=False),
    sql.Column("input_file_id", sql.String(64), nullable=False),
    sql.Column("completion_window", sql.String(16), nullable=False),
    sql.Column("status", sql.String(16), nullable=False),
    sql.Column("ending", sql.String(16)),  # the status that it will have: from then on no request is answered
    sql.Column("created_at", sql.BigInteger, nullable=False),
    sql.Column("expires_at", sql.BigInteger, nullable=False),
    *(sql.Column(f"{name}_at", sql.BigInteger) for name in BATCH_STEPS),
    sql.Column("model", sql.Text),  # of the first request
    sql.Column("default_model", sql.Text),  # of requests that name none
    sql.Column("fingerprints", sql.Text),  # a JSON object: of each model
    sql.Column("metadata", sql.Text),  # a JSON object
    sql.Column("output_expires_seconds", sql.BigInteger),
    sql.Column("errors", sql.Text),  # a JSON list
    sql.Column("output_file_id", sql.String(64)),
    sql.Column("error_file_id", sql.String(64)),
    *(sql.Column(name, sql.BigInteger, nullable=False) for name in BATCH_COUNTS),
    sql.Column("position", sql.Text, nullable=False),  # a JSON object: where the next shard begins
    sql.Column("num_shards", sql.BigInteger, nullable=False),
    sql.Column("lease_owner", sql.String(64)),
    sql.Column("lease_until", sql.Double, nullable=False),
    sql.Column("lease_number", sql.BigInteger, nullable=False),
    sql.Column("is_reported", sql.Boolean, nullable=False),  # to the webhook, or never to be
    sql.Column("input_format", sql.Text, info={"since": 6}),  # a JSON object: how a table or another form is read
    sql.Column("lines_file_id", sql.String(64), info={"since": 6}),  # the input as lines of requests, if it was of another form
    info={"since": 5},
)
sql.Index("batches_owner", batches_table.c.owner, batches_table.c.created_at)
sql.Index("batches_status", batches_table.c.status)
# What is done of each job: shards of consecutive requests, and the files that have their replies.
shards_table = sql.Table(
    "batch_shards",
    metadata,
    sql.Column("batch_id", sql.String(64), primary_key=True),
    sql.Column("number", sql.BigInteger, primary_key=True),
    sql.Column("output_part", sql.String(64)),
    sql.Column("error_part", sql.String(64)),
    info={"since": 5},
)


def is_current(connection: sql.Connection) -> bool:
    """Whether no migration is needed. Raises OperatorError if this version is too old for the database."""
    return version_of(connection) >= LATEST


def migrate(connection: sql.Connection) -> None:
    """Runs the missing steps. The caller holds a lock, so that no other process migrates meanwhile."""
    for step in range(version_of(connection) + 1, LATEST + 1):
        _expand(connection, step)
    if connection.scalar(sql.select(schema_table.c.version)) is None:
        connection.execute(schema_table.insert().values(version=LATEST, readable_from=1))
    connection.execute(schema_table.update().where(schema_table.c.version < LATEST).values(version=LATEST))
    if connection.scalar(sql.select(revision_table.c.number)) is None:
        connection.execute(revision_table.insert().values(number=1))
    counted = revision_table.c.counted
    connection.execute(revision_table.update().where(counted.is_(None)).values(counted=revision_table.c.number))


def version_of(connection: sql.Connection) -> int:
    """0 if the database is empty, 1 if the first version made it, which stored no version.

    Raises OperatorError if the tables are not a gateway's, or are of a version that this one cannot read.
    """
    inspected = sql.inspect(connection)
    if not inspected.has_table(schema_table.name):
        if not inspected.has_table(keys_table.name):
            return 0
        has = {column["name"] for column in inspected.get_columns(keys_table.name)}
        if lacking := [column.name for column in keys_table.columns if not column.info and column.name not in has]:
            raise OperatorError(f"the key database is not a gateway's: its table 'keys' has no {', '.join(lacking)}")
        return 1
    row = connection.execute(schema_table.select()).first()
    if row is not None and row.readable_from > LATEST:
        raise OperatorError(
            f"the key database was made by a newer version of the gateway: its schema is {row.version}, and this one reads"
            f" up to {LATEST}: upgrade this gateway"
        )
    return row.version if row is not None else 1


def _expand(connection: sql.Connection, step: int) -> None:
    for table in metadata.sorted_tables:
        if table.info.get("since", 1) <= step:
            table.create(connection, checkfirst=True)
            has = {column["name"] for column in sql.inspect(connection).get_columns(table.name)}
            for column in table.columns:
                if column.name not in has and column.info.get("since", 1) <= step:
                    _add_column(connection, table, column)
            if step > 1:
                for index in table.indexes:
                    index.create(connection, checkfirst=True)


def _add_column(connection: sql.Connection, table: sql.Table, column: sql.Column[Any]) -> None:
    declared = CreateColumn(column).compile(dialect=connection.dialect)
    name = connection.dialect.identifier_preparer.format_table(table)
    connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {declared}")
