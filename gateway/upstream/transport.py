"""HTTP transport to an upstream. The only file that knows aiohttp, whose exceptions it turns into TransportError.

Replies are bounded, redirects are not followed, cookies are not kept, and proxies of the environment are not used.
"""

import asyncio
import base64
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from gateway import __version__
from gateway.errors import OperatorError
from gateway.name_lookup import NameLookup
from gateway.upstream.tcp_silence import Silence

Kind = Literal["connect", "tls", "timeout", "silent", "cut", "nonsense", "too_large"]
KEPT_ALIVE_SECONDS = 15.0
LEAST_REPLY_SECONDS = 1.0
LEAVES_ALL = {"silent", "timeout"}  # after these, new requests use new connections only
NAME_SECONDS = 2  # that a resolved address is used; a server that moves to another is followed within it
# gzip does not shrink vectors in base64, and shrinks them little as text; on a local network it costs more time than it saves.
OWN_HEADERS = {
    "accept": "application/json",
    "accept-encoding": "identity",
    "content-type": "application/json",
    "user-agent": f"embeddings-gateway/{__version__}",
}


class TransportError(Exception):
    """No reply could be read. `kind` says why, in one word."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.kind: Kind = kind


@dataclass(frozen=True, slots=True)
class UpstreamResponse:
    """A whole reply. Header names are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How to reach a row's servers: headers, a proxy and its credentials ("user:password"), further certificate authorities."""

    headers: Mapping[str, str]
    connect_timeout_seconds: float
    read_timeout_seconds: float
    max_connections: int
    proxy: str | None = None
    proxy_credentials: str | None = None
    ca_file: str | None = None


class Transport:
    """A pool of keep-alive connections. `open` makes it, on the event loop that uses it.

    Once a connection fell silent, new requests do not use the other open ones. The cause (a firewall that forgot its state, a host
    that is gone) has broken all of them, and each would cost a request its time.
    """

    @classmethod
    async def open(cls, route: TransportOptions) -> "Transport":
        """Reads certificate authorities from disk, in a thread. Raises OperatorError if `ca_file` cannot be read."""
        return cls(route, await asyncio.to_thread(tls, route.ca_file))

    def __init__(self, route: TransportOptions, context: ssl.SSLContext) -> None:
        self.headers = CIMultiDict({**OWN_HEADERS, **route.headers})
        self.proxy = URL(route.proxy) if route.proxy else None
        self.proxy_headers = CIMultiDict(proxy_headers(route.proxy_credentials))
        self.http_headers = CIMultiDict({**self.headers, **self.proxy_headers})
        self.names = _BoundedResolver(route.connect_timeout_seconds)
        # For silence, and then for the whole reply: the read timeout alone never ends a reply of a byte now and then.
        self.reply_seconds = route.read_timeout_seconds + max(route.read_timeout_seconds, LEAST_REPLY_SECONDS)
        self.timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=route.connect_timeout_seconds, sock_read=route.read_timeout_seconds
        )
        self.route = route
        self.context = context
        self.pool = self.new_pool()
        self.pools = {self.pool}  # and the ones before it, while requests use them

    def new_pool(self) -> "Pool":
        silence = Silence(self.route.connect_timeout_seconds, lambda: self.leave(pool, has_silent=True))
        connector = aiohttp.TCPConnector(
            limit=self.route.max_connections,
            ssl=self.context,
            keepalive_timeout=KEPT_ALIVE_SECONDS,
            ttl_dns_cache=NAME_SECONDS,
            resolver=self.names,
            socket_factory=silence.made_socket,
        )
        traces = aiohttp.TraceConfig()
        traces.on_connection_create_end.append(self.begin_reply)
        traces.on_connection_reuseconn.append(self.begin_reply)
        session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=self.timeout, trace_configs=[traces]
        )
        pool = Pool(session, silence)  # the lambda above refers to it
        return pool

    async def begin_reply(self, _: aiohttp.ClientSession, context: Any, __: object) -> None:
        """Starts a reply's timeout once its request has a connection: waiting for one does not count as the upstream's time."""
        whole: asyncio.Timeout = context.trace_request_ctx
        whole.reschedule(asyncio.get_running_loop().time() + self.reply_seconds)

    def leave(self, pool: "Pool", *, has_silent: bool = False) -> None:
        """Replaces the pool, so that new requests use new connections."""
        pool.has_silent |= has_silent
        if pool is self.pool:
            self.pool = self.new_pool()
            self.pools.add(self.pool)

    @asynccontextmanager
    async def used_pool(self) -> AsyncIterator["Pool"]:
        """Yields the current pool. If it is replaced meanwhile, the last request on it closes it."""
        pool = self.pool
        pool.enter()
        try:
            yield pool
        finally:
            pool.exit()
            if pool is not self.pool and not pool.num_users:
                self.pools.discard(pool)
                await pool.session.close()

    async def post(self, url: URL, content: bytes, *, max_bytes: int, headers: Mapping[str, str]) -> UpstreamResponse:
        """Sends a POST. `max_bytes` bounds the decompressed reply; `headers` are this request's own. Raises TransportError."""
        return await self.exchange("POST", url, content, max_bytes=max_bytes, own=headers)

    async def get(self, url: URL, *, max_bytes: int) -> UpstreamResponse:
        return await self.exchange("GET", url, None, max_bytes=max_bytes, own={})

    async def exchange(
        self, method: str, url: URL, content: bytes | None, *, max_bytes: int, own: Mapping[str, str]
    ) -> UpstreamResponse:
        """Sends a request. The proxy's password goes to the proxy alone: with TLS, only in the CONNECT that opens the tunnel."""
        is_tls = url.scheme == "https"
        headers = self.headers if is_tls else self.http_headers
        async with self.used_pool() as pool:
            try:
                async with (
                    asyncio.timeout(None) as whole,
                    pool.session.request(
                        method,
                        url,
                        data=content,
                        headers=CIMultiDict({**headers, **own}) if own else headers,
                        allow_redirects=False,
                        proxy=self.proxy,
                        proxy_headers=self.proxy_headers if is_tls else None,
                        trace_request_ctx=whole,
                    ) as response,
                ):
                    return UpstreamResponse(response.status, response.headers, await read(response, max_bytes))
            except FOREIGN as error:
                kind = kind_of(error)
                if kind in LEAVES_ALL:
                    self.leave(pool)
                # drops the error's own text: it may contain a URL with a secret
                raise TransportError("silent" if kind == "cut" and pool.has_silent else kind) from None

    async def close(self) -> None:
        for pool in list(self.pools):
            await pool.session.close()


class _BoundedResolver(aiohttp.abc.AbstractResolver):
    """A resolver like aiohttp's own, but with a deadline, and without the event loop's threads."""

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self.lookup = NameLookup()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        found = await self.lookup.addresses(host, port, family=family, timeout_seconds=self.timeout_seconds)
        return [
            aiohttp.abc.ResolveResult(
                hostname=host,
                host=f"{place[0]}%{place[3]}" if kind == socket.AF_INET6 and place[3] else place[0],
                port=place[1],
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, place in found
        ]

    async def close(self) -> None:
        """Does nothing: a look-up that hangs is abandoned."""


class Pool:
    """A client session and its watch for silence. `has_silent`: one of its connections was lost silently."""

    def __init__(self, session: aiohttp.ClientSession, silence: Silence) -> None:
        self.session = session
        self.silence = silence
        self.num_users = 0
        self.has_silent = False

    def enter(self) -> None:
        self.num_users += 1
        if self.num_users == 1:
            self.silence.start()

    def exit(self) -> None:
        self.num_users -= 1
        if not self.num_users:
            self.silence.stop()


async def read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if response.content_length is not None and response.content_length > max_bytes:
        raise TransportError("too_large")
    chunks, num_bytes = [], 0
    async for chunk in response.content.iter_any():
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise TransportError("too_large")
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


# The first match counts, so a subclass stands before its base class.
KINDS: tuple[tuple[type[Exception], Kind], ...] = (
    (aiohttp.ConnectionTimeoutError, "connect"),
    (aiohttp.ClientSSLError, "tls"),
    (ssl.SSLError, "tls"),
    (aiohttp.ServerFingerprintMismatch, "tls"),
    (aiohttp.ClientConnectorError, "connect"),
    (aiohttp.ClientHttpProxyError, "connect"),
    (TimeoutError, "timeout"),
    (aiohttp.ServerDisconnectedError, "cut"),
    (aiohttp.ClientOSError, "cut"),
    (aiohttp.ClientConnectionError, "cut"),
    (aiohttp.ClientPayloadError, "cut"),
    (OSError, "cut"),
    (RuntimeError, "cut"),  # closed while it was used
    (aiohttp.ClientError, "nonsense"),
    (aiohttp.http_exceptions.HttpProcessingError, "nonsense"),
)


FOREIGN = (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError, ValueError, RuntimeError)


def kind_of(error: Exception) -> Kind:
    if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT and not isinstance(error, aiohttp.ClientConnectorError):
        return "silent"  # from the kernel: what was sent was not acknowledged
    return next((kind for foreign, kind in KINDS if isinstance(error, foreign)), "nonsense")


def tls(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise OperatorError(f"ca_file: {ca_file} cannot be read as PEM: {error.strerror or 'no certificate in it'}") from None
    return context


def proxy_headers(credentials: str | None) -> dict[str, str]:
    return {} if credentials is None else {"proxy-authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}
