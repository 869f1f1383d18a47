"""The database under the keys and the usage: a SQLite file, or PostgreSQL by its URL. Everything here may block."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gateway.access.schema import is_current, migrate
from gateway.config import StoreSettings, secret_value
from gateway.errors import ConfigurationError, OperatorError

FILE_NAME = "gateway.db"
BUSY_TIMEOUT_SECONDS = 5.0
BUSY_PAUSE_SECONDS = 0.02
PRIMARY_CODE = 0xFF  # of SQLite's extended error codes, the part that is the error itself
CONNECT_TIMEOUT_SECONDS = 5
STATEMENT_TIMEOUT_SECONDS = 15
LINK_TIMEOUT_SECONDS = 10  # for what was sent to be acknowledged: a network that drops packets is noticed within it
MIGRATION_LOCK = 0x67617465  # "gate": any number that no other program takes
POSTGRES_SCHEMES = {"postgresql", "postgres", "postgresql+psycopg"}

WRITING = "is_writing"


class Database:
    """`read` and `write` give transactions; both raise OperatorError, in one line and without a password, on any failure."""

    def __init__(self, settings: StoreSettings, *, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS) -> None:
        """Connects to nothing yet. Raises ConfigurationError for a URL that is none, and where PostgreSQL's driver is missing."""
        if settings.database_url is None:
            self.path: Path | None = settings.folder / FILE_NAME
            self.label = str(self.path)
            self.engine = sqlite_engine(self.path, busy_timeout_seconds)
        else:
            self.path = None
            url = postgres_url(settings)
            self.label = f"at {url.host or 'its socket'}"
            self.engine = postgres_engine(url)
        self.inode: int | None = None

    def open(self) -> None:
        """Makes the file where there is none, for its owner alone to read, and brings the tables up to this version."""
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
        with self.write() as connection:
            if self.path is None:
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            migrate(connection)

    def read(self) -> AbstractContextManager[sql.Connection]:
        return self.transaction(is_writing=False)

    def write(self) -> AbstractContextManager[sql.Connection]:
        """On SQLite the file is locked from the beginning: a reader that turns into a writer could be refused in the middle."""
        return self.transaction(is_writing=True)

    @contextmanager
    def transaction(self, *, is_writing: bool) -> Iterator[sql.Connection]:
        self.notice_another_file()
        try:
            with self.engine.connect().execution_options(**{WRITING: is_writing}) as connection, connection.begin():
                yield connection
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise OperatorError(f"the key database {self.label} cannot be used: {reason_of(error)}") from error

    def notice_another_file(self) -> None:
        """A backup put in the file's place would else go unread until a restart: open connections keep the old file."""
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


def sqlite_engine(path: Path, busy_timeout_seconds: float) -> sql.Engine:
    def connect() -> sqlite3.Connection:
        # mode=rw: a file that went away is an error, not an empty database.
        uri = f"file:{quote(str(path))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout_seconds, check_same_thread=False, isolation_level=None)
        try:
            enter_wal(connection, busy_timeout_seconds)
        except BaseException:
            connection.close()
            raise
        return connection

    engine = sql.create_engine("sqlite://", creator=connect, poolclass=sql.QueuePool)
    sql.event.listen(engine, "begin", begin_sqlite)
    return engine


def enter_wal(connection: sqlite3.Connection, timeout_seconds: float) -> None:
    """Several processes that begin at once each try to make a new file a WAL one; SQLite then says busy without any waiting."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(BUSY_PAUSE_SECONDS)


def begin_sqlite(connection: sql.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITING) else "BEGIN")


def postgres_url(settings: StoreSettings) -> sql.URL:
    given = settings.database_url
    try:
        url = sql.make_url(given if isinstance(given, str) else secret_value(given).strip() if given else "")
    except (ArgumentError, ValueError):
        raise ConfigurationError("store.database_url: this is no URL: it is written postgresql://user@host/database") from None
    if url.drivername not in POSTGRES_SCHEMES:
        raise ConfigurationError("store.database_url: only postgresql:// is known; without it a SQLite file in data_dir is used")
    return url.set(drivername="postgresql+psycopg")


def postgres_engine(url: sql.URL) -> sql.Engine:
    try:
        engine = sql.create_engine(
            url,
            pool_size=4,
            max_overflow=4,
            pool_timeout=CONNECT_TIMEOUT_SECONDS,
            pool_pre_ping=True,  # a connection that a restart of the server ended is not a reason to fail
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "tcp_user_timeout": 1000 * LINK_TIMEOUT_SECONDS,
                "keepalives_idle": LINK_TIMEOUT_SECONDS,
                "application_name": "embeddings-gateway",
                "prepare_threshold": None,  # poolers between us and the server hand a session's statements to another
            },
        )
    except ImportError:
        raise ConfigurationError("store.database_url: PostgreSQL needs its driver: pip install 'psycopg[binary]'") from None
    sql.event.listen(engine, "begin", begin_postgres)
    return engine


def begin_postgres(connection: sql.Connection) -> None:
    """LOCAL to the transaction: a pooler would give a session's settings to somebody else."""
    milliseconds = 1000 * STATEMENT_TIMEOUT_SECONDS
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds // 3}")


def reason_of(error: Exception) -> str:
    """The driver's own words, of which the first line says what is wrong."""
    lines = str(getattr(error, "orig", None) or "").strip().splitlines() or [str(error) if isinstance(error, sqlite3.Error) else ""]
    return lines[0].strip() or type(error).__name__
