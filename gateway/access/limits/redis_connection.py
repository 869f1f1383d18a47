"""One pipelined connection to a Redis or Valkey server, shared by all requests: replies come in the order of the commands.

So there is no pool to wait for, and a command costs this process 10 microseconds of CPU. redis-py's asyncio client, with its pool,
takes 50, and its time-outs also fire if only our own loop is late. hiredis, redis-py's parser, reads and writes the protocol.
"""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from gateway.errors import ConfigurationError
from gateway.name_lookup import NameLookup

DEFAULT_PORT = 6379
CONNECT_SECONDS = 2.0  # TLS included; no request waits for it
LATE_TURNS = 4  # of the event loop after the time-out: a reply that came while the loop was busy is read in them, and is in time


class RedisConnectionLost(Exception):
    """No answer came in time, or the connection broke."""


class RedisError(Exception):
    """The server answered with an error, such as NOSCRIPT or READONLY."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A server's address and the credentials for it. `path` is a Unix socket's."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    database: int = 0
    username: str = ""
    password: str = ""
    is_tls: bool = False


def address_of(url: str) -> RedisAddress:
    """Parses redis://[[user]:password@]host[:port][/database], rediss:// for TLS, or unix:///path?db=0.

    Raises ConfigurationError, whose text quotes nothing of the URL, which may contain a password.
    """
    try:
        parts = urlsplit(url.strip())
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
        if parts.scheme == "unix" and parts.path:
            database = int(parse_qs(parts.query).get("db", ["0"])[0])
            return RedisAddress(path=unquote(parts.path), database=database, username=username, password=password)
        if parts.scheme in {"redis", "rediss"} and parts.hostname:
            database, is_tls = int(parts.path.strip("/") or 0), parts.scheme == "rediss"
            port = parts.port or DEFAULT_PORT
            return RedisAddress(parts.hostname, port, "", database, username, password, is_tls)
    except ValueError:
        pass
    raise ConfigurationError("limits.redis_url is no address such as redis://:password@host:6379/0, rediss://… or unix:///path")


class RedisConnection(asyncio.Protocol):
    """A connection, made by `open_connection`. `lost` is set once it can no longer be used."""

    transport: asyncio.Transport

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self.loop = asyncio.get_running_loop()
        self.reader = hiredis.Reader()
        self.pending: deque[asyncio.Future[Any] | None] = deque()
        self.lost = asyncio.Event()
        self.lost_because = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    async def ask(self, *words: str | int) -> Any:
        """Sends a command. Returns its reply. Raises RedisConnectionLost, or RedisError with the server's message."""
        future = self.loop.create_future()
        self.send(words, future)
        timer = self.loop.call_later(self.timeout_seconds, self.expire, future, LATE_TURNS)
        try:
            return await future
        finally:
            timer.cancel()

    def send_nowait(self, *words: str | int) -> None:
        """Sends a command and ignores its reply."""
        if not self.lost.is_set():
            self.send(words, None)

    def send(self, words: tuple[str | int, ...], answer: asyncio.Future[Any] | None) -> None:
        if self.lost.is_set():
            raise RedisConnectionLost(self.lost_because)
        self.pending.append(answer)
        self.transport.write(hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub knows tuples of one

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        try:
            while (reply := self.reader.gets()) is not False:
                answer = self.pending.popleft()
                if answer is None or answer.done():  # the caller was cancelled, or did not wait
                    continue
                if isinstance(reply, hiredis.ReplyError):
                    answer.set_exception(RedisError(str(reply)))
                else:
                    answer.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            self.close("it does not speak Redis' protocol")

    def expire(self, answer: asyncio.Future[Any], turns: int) -> None:
        if answer.done():
            return
        if turns:
            self.loop.call_soon(self.expire, answer, turns - 1)
        else:
            self.close(f"no answer within {self.timeout_seconds:g} s")

    def connection_lost(self, error: Exception | None) -> None:
        self.close(f"the connection broke: {error}" if error else "the server closed the connection")

    def close(self, reason: str) -> None:
        """Breaks the connection. Pending commands fail with the reason; `lost_because` keeps the first one."""
        self.lost_because = self.lost_because or reason
        self.lost.set()
        self.transport.abort()
        while self.pending:
            answer = self.pending.popleft()
            if answer is not None and not answer.done():
                answer.set_exception(RedisConnectionLost(reason))


async def open_connection(address: RedisAddress, timeout_seconds: float, names: NameLookup) -> RedisConnection:
    """Returns an authenticated connection. Raises RedisConnectionLost, or RedisError if the server refuses us."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await _connect_any(address, timeout_seconds, names)
    except OSError as error:  # including TimeoutError and TLS errors
        raise RedisConnectionLost(f"it cannot be reached: {error.strerror or type(error).__name__}") from None
    try:
        if address.password:
            await connection.ask("AUTH", *([address.username] if address.username else []), address.password)
        if address.database:
            await connection.ask("SELECT", address.database)
    except RedisError:
        connection.close("it refused us")
        raise
    return connection


async def _connect_any(address: RedisAddress, timeout_seconds: float, names: NameLookup) -> RedisConnection:
    """Connects to the first of the host's addresses that answers. Raises OSError."""
    loop = asyncio.get_running_loop()
    if address.path:
        _, connection = await loop.create_unix_connection(lambda: RedisConnection(timeout_seconds), address.path)
        return connection
    secure = ssl.create_default_context() if address.is_tls else None
    name = address.host if secure else None
    found = await names.addresses(address.host, address.port, timeout_seconds=CONNECT_SECONDS)
    failure: OSError | None = None
    for *_, place in found:
        try:
            async with asyncio.timeout(CONNECT_SECONDS / len(found)):
                _, connection = await loop.create_connection(
                    lambda: RedisConnection(timeout_seconds), place[0], place[1], ssl=secure, server_hostname=name
                )
        except OSError as error:
            failure = error
        else:
            return connection
    raise failure or OSError("it has no address")
