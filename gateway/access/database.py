"""The database of keys and usage: a SQLite file, or PostgreSQL by its URL. Every call may block, but never for ever.

We bound each wait ourselves, whatever the server, a pooler or the network does with a connection:

    a ping, before an idle connection is used      PING_SECONDS       then it is dropped and logged, and another is opened
    a connection is made, for each host            CONNECT_TIMEOUT_SECONDS
    a statement, a batch of rows, a commit         SILENCE_SECONDS    then its connection is dropped: KeyStoreUnavailable

We also give the server shorter bounds: while it lives, its own error is the one that is reported. The server ends an idle
transaction too: after a lost connection its locks would block the next try.
"""

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, InvalidatePoolError, SQLAlchemyError

from gateway.access.schema import is_current, migrate
from gateway.access.work_deadline import WorkDeadline
from gateway.access.worker import alive
from gateway.backoff import Backoff
from gateway.config import StoreSettings, secret_value
from gateway.errors import ConfigurationError, KeyStoreUnavailable, OperatorError
from gateway.log import get_logger

FILE_NAME = "gateway.db"
BUSY_TIMEOUT_SECONDS = 5.0
BUSY = Backoff(first_seconds=0.02, max_seconds=0.08)
PRIMARY_CODE = 0xFF  # the part of SQLite's extended error codes that is the primary code
CONNECT_TIMEOUT_SECONDS = 3
PING_SECONDS = 2.0
SILENCE_SECONDS = 5.0
LONG_SILENCE_SECONDS = 16.0  # for the few statements that scan a whole table
SERVERS_SHARE, LOCK_SHARE = 0.8, 0.75  # statement_timeout as a share of our bound; lock_timeout as a share of that
LEEWAY_SECONDS = 1.0  # after a connection is cut, until its thread is abandoned
LINK_TIMEOUT_SECONDS = 10  # for data to be acknowledged: detects a network that drops packets
MIGRATION_LOCK = 0x67617465  # "gate": any number that no other program takes
POSTGRES_SCHEMES = {"postgresql", "postgres", "postgresql+psycopg"}

WRITING, SILENCE = "is_writing", "silence_seconds"
READ_ONLY = "25006"  # SQLSTATE of a primary that became a standby: writers must find the new primary

log = get_logger()


class Database:
    """`read` and `write` give transactions. On any failure both raise KeyStoreUnavailable, in one line without a password."""

    def __init__(
        self,
        settings: StoreSettings,
        *,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
        on_dropped: Callable[[], None] | None = None,
    ) -> None:
        """Does not connect yet. `on_dropped` is called for each connection that was cut for its silence, on the thread it had.

        Raises ConfigurationError if the URL is not valid, or PostgreSQL's driver is missing.
        """
        self.silence_seconds = silence_seconds
        self.on_dropped = on_dropped
        self.connect_seconds = float(CONNECT_TIMEOUT_SECONDS)
        self.here = threading.local()  # `watch`: the deadline of this thread's work
        if settings.database_url is None:
            self.path: Path | None = settings.folder / FILE_NAME
            self.identity = ""  # empty for SQLite
            self.label = str(self.path)
            self.silence_seconds += busy_timeout_seconds  # SQLite itself waits for a lock so long, and then reports it
            self.engine = _sqlite_engine(self.path, busy_timeout_seconds)
        else:
            self.path = None
            url = _postgres_url(settings)
            self.label = f"at {url.host or 'its socket'}"
            self.identity = identity_of(url)
            self.connect_seconds *= max(1, len(url.normalized_query.get("host", ())))
            self.engine = _postgres_engine(url)
        sql.event.listen(self.engine, "connect", self.on_connect, insert=True)  # before SQLAlchemy asks for the server's version
        sql.event.listen(self.engine, "checkout", self.checked_out)
        self.inode: int | None = None

    def open(self) -> None:
        """Creates the file if there is none, readable by its owner only, and migrates the tables to this version."""
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                if not self.path.exists():
                    self.path.touch(mode=0o600)
            except OSError as error:
                raise OperatorError(f"the data folder {self.path.parent} cannot be written: {error.strerror}") from None
        with self.read() as connection:
            if is_current(connection):
                return
        with self.write(silence_seconds=LONG_SILENCE_SECONDS) as connection:
            if self.path is None:
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            migrate(connection)

    def read(self, *, silence_seconds: float | None = None) -> AbstractContextManager[sql.Connection]:
        """`silence_seconds` bounds each statement, for those that take longer than others."""
        return self.transaction(is_writing=False, silence_seconds=silence_seconds)

    def write(self, *, silence_seconds: float | None = None) -> AbstractContextManager[sql.Connection]:
        """On SQLite the write lock is taken at the beginning: a reader that turns into a writer could be refused in the middle."""
        return self.transaction(is_writing=True, silence_seconds=silence_seconds)

    @contextmanager
    def transaction(self, *, is_writing: bool, silence_seconds: float | None) -> Iterator[sql.Connection]:
        self.notice_another_file()
        silence, is_unsure, watch = silence_seconds or self.silence_seconds, False, WorkDeadline()
        self.here.watch, self.here.silence_seconds = watch, silence
        alive(self.connect_seconds + PING_SECONDS + LEEWAY_SECONDS)
        try:
            options: dict[str, Any] = {WRITING: is_writing, SILENCE: silence}
            with watch, self.engine.connect().execution_options(**options) as connection, connection.begin():
                yield connection
                is_unsure = is_writing  # the commit follows
                self.goes_on()
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            reason = reason_of(error)
            if watch.has_cut:
                reason = f"no answer within {watch.seconds:g} s"
                self.log_outage(reason)
            reason += "; whether the change was made is not known" if is_unsure else ""
            raise KeyStoreUnavailable(f"the key database {self.label} cannot be used: {reason}", is_unsure=is_unsure) from error
        finally:
            self.here.watch = None

    def goes_on(self) -> None:
        """Heartbeat of long work: restarts the deadline for the next one."""
        watch: WorkDeadline | None = getattr(self.here, "watch", None)
        if watch is not None:
            watch.expect(self.here.silence_seconds)
            alive(self.here.silence_seconds + LEEWAY_SECONDS)

    def on_connect(self, dbapi_connection: Any, record: Any) -> None:
        record.info["is_fresh"] = True
        self.watch_over(dbapi_connection)

    def checked_out(self, dbapi_connection: Any, record: Any, _: object) -> None:
        """Pings an idle connection. If it does not answer, it and all as old are dropped, and the pool opens another."""
        if record.info.pop("is_fresh", False) or self.path is not None:
            self.watch_over(dbapi_connection)
            return
        watch: WorkDeadline = self.here.watch
        try:
            self.watch_over(dbapi_connection)
            watch.expect(PING_SECONDS)
            self.engine.dialect.do_ping(dbapi_connection)
        except Exception as error:
            if watch.has_cut:
                self.log_outage(f"no answer within {PING_SECONDS:g} s")
            watch.forget()
            alive(self.connect_seconds + LEEWAY_SECONDS)
            raise InvalidatePoolError from error
        self.goes_on()

    def watch_over(self, dbapi_connection: Any) -> None:
        watch: WorkDeadline | None = getattr(self.here, "watch", None)
        if watch is not None:
            watch.over(dbapi_connection)
            self.goes_on()

    def log_outage(self, reason: str) -> None:
        log.warning("store_connection_dropped", store=self.label, reason=reason)
        if self.on_dropped is not None:
            self.on_dropped()

    def notice_another_file(self) -> None:
        """Reconnects if the file was replaced, as by a backup: open connections would read the old file until a restart."""
        if self.path is not None:
            try:
                inode = self.path.stat().st_ino
            except OSError:
                inode = -1
            if inode != self.inode:
                self.engine.dispose()
                self.inode = inode

    def close(self) -> None:
        self.engine.dispose()


def _sqlite_engine(path: Path, busy_timeout_seconds: float) -> sql.Engine:
    def connect() -> sqlite3.Connection:
        # mode=rw: a file that was removed is an error, not an empty database.
        uri = f"file:{quote(str(path))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout_seconds, check_same_thread=False, isolation_level=None)
        try:
            _enter_wal(connection, busy_timeout_seconds)
        except BaseException:
            connection.close()
            raise
        return connection

    engine = sql.create_engine("sqlite://", creator=connect, poolclass=sql.QueuePool)
    sql.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _enter_wal(connection: sqlite3.Connection, timeout_seconds: float) -> None:
    """Switches the file to WAL, with retries: if several processes do so at once, SQLite reports busy without waiting."""
    deadline = time.monotonic() + timeout_seconds
    for num_failures in itertools.count(1):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(BUSY.pause_seconds(num_failures))


def _begin_sqlite(connection: sql.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITING) else "BEGIN")


def _postgres_url(settings: StoreSettings) -> sql.URL:
    given = settings.database_url
    try:
        url = sql.make_url(given if isinstance(given, str) else secret_value(given).strip() if given else "")
    except (ArgumentError, ValueError):
        raise ConfigurationError("store.database_url: this is no URL: it is written postgresql://user@host/database") from None
    if url.drivername not in POSTGRES_SCHEMES:
        raise ConfigurationError("store.database_url: only postgresql:// is known; without it a SQLite file in data_dir is used")
    return url.set(drivername="postgresql+psycopg")


def identity_of(url: sql.URL) -> str:
    """The database and the user, without a password and without options of the connection (`sslmode`)."""
    query = {name: url.query[name] for name in ("host", "port", "dbname", "user") if name in url.query}
    return url.set(password=None, query=query).render_as_string()


def _postgres_engine(url: sql.URL) -> sql.Engine:
    try:
        engine = sql.create_engine(
            url,
            pool_size=4,
            max_overflow=20,  # more than the threads that can be abandoned with a connection
            pool_timeout=CONNECT_TIMEOUT_SECONDS,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "tcp_user_timeout": 1000 * LINK_TIMEOUT_SECONDS,
                "keepalives_idle": LINK_TIMEOUT_SECONDS,
                "application_name": "embeddings-gateway",
                "prepare_threshold": None,  # no prepared statements: a pooler runs a session's statements on other sessions
            },
        )
    except ImportError:
        raise ConfigurationError("store.database_url: PostgreSQL needs its driver: pip install 'psycopg[binary]'") from None
    sql.event.listen(engine, "begin", _begin_postgres)
    sql.event.listen(engine, "handle_error", _leave_a_standby)
    return engine


def _begin_postgres(connection: sql.Connection) -> None:
    """Sets the server's time-outs, LOCAL to the transaction: a pooler would pass a session's settings to other clients."""
    milliseconds = round(1000 * SERVERS_SHARE * connection.get_execution_options().get(SILENCE, SILENCE_SECONDS))
    connection.exec_driver_sql(
        f"SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = {round(LOCK_SHARE * milliseconds)};"
        f" SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
    )


def _leave_a_standby(context: sql.ExceptionContext) -> None:
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def reason_of(error: Exception) -> str:
    """The first line of the driver's message, which says what is wrong."""
    if isinstance(error, OSError):  # out of descriptors or threads
        return error.strerror or type(error).__name__
    lines = str(getattr(error, "orig", None) or "").strip().splitlines() or [str(error) if isinstance(error, sqlite3.Error) else ""]
    return lines[0].strip() or type(error).__name__
