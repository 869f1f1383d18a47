"""The outermost ASGI middleware: request ids, timing, metrics, one log line, and the checks that come before Litestar.

Litestar's own middleware sees neither a 404 nor a 405 and counts a 401 as a 200. So requests are counted here.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from gateway.api.cors import Cors
from gateway.api.error_format import ErrorFormat, openai_error
from gateway.api.error_handler import CLIENT_GONE, CLIENT_GONE_STATUS
from gateway.api.limit_headers import limit_headers
from gateway.api.paths import RequestTarget, target_of
from gateway.api.request_log import OWN_HEADERS, PRIVATE_HEADERS, RequestRecord, record_of, request_id_from
from gateway.config import ServerSettings
from gateway.errors import (
    ClientGone,
    GatewayError,
    HeadersTooLarge,
    InternalError,
    Overloaded,
    RateLimited,
    RequestExceedsLimit,
    Unavailable,
)
from gateway.log import get_logger
from gateway.metrics import Metrics
from gateway.server.client_address import TrustedProxies
from gateway.server.connection_table import too_many
from gateway.server.headers import Headers, value_of
from gateway.server.log_sampler import LogSampler
from gateway.tracing import Tracing

PROBES = frozenset({"/livez", "/readyz", "/health", "/metrics"})
QUIET = PROBES | {"/page/live"}  # polled: a log line each would bury the others
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REFUSALS = frozenset({RateLimited.status, Unavailable.status})
MILLISECONDS = 1000
KEEP_ALIVE_SHARE = 0.9  # of the real keep-alive time; the header has whole seconds
DOCS = ("/docs", "/redoc")  # the same for every client, and worth caching

log = get_logger()


class Edge:
    """Wraps the application. `is_leaving`: the shutdown has begun, and clients should reconnect elsewhere. `is_draining`: new
    requests are refused. `methods`: each route's `Allow` header, by its template.
    `doors`: the application that answers POST, for each door's route; Litestar has their other methods. `formats`: the error
    format of each door, and of other paths, see `error_format_of`. `has_tei`: /tei/{model} may stand before a path."""

    def __init__(  # noqa: PLR0913 - named, each of them
        self,
        app: ASGIApp,
        *,
        settings: ServerSettings,
        metrics: Metrics,
        sampler: LogSampler,
        is_leaving: Callable[[], bool],
        is_draining: Callable[[], bool],
        methods: Mapping[str, str],
        doors: Mapping[str, ASGIApp],
        formats: Mapping[str, ErrorFormat],
        has_tei: bool,
        tracing: Tracing | None = None,
    ) -> None:
        self.app = app
        self.settings = settings
        self.cors = Cors(settings.cors_origins)
        self.proxies = TrustedProxies(settings.trusted_proxies)
        self.metrics = metrics
        self.sampler = sampler
        self.tracing = tracing
        self.is_leaving = is_leaving
        self.is_draining = is_draining
        self.methods = methods
        self.doors = doors
        self.formats = formats
        self.has_tei = has_tei
        self.keep_alive = _keep_alive_headers(settings.keep_alive_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            await self.answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)  # a websocket, which Litestar refuses

    async def answer(self, original: HTTPScope, receive: Receive, send: Send) -> None:
        scope = original.copy()  # the server's own scope is not changed: it must see a HEAD as a HEAD
        sent = list(scope["headers"])
        record = self.begin(scope, sent)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = self.with_methods(message["headers"], scope)
                has = {name for name, _ in headers}
                own = [each for each in self.own_headers(record, scope["path"]) if each[0] not in has]
                own += [] if b"connection" in has or self.is_leaving() or ends(scope) else self.keep_alive
                message["headers"] = [*headers, *own, *self.cors.response_headers(sent)]
            elif message["type"] == "http.response.body" and record.method == "HEAD":
                message["body"] = b""
            await send(message)

        self.metrics.http.num_in_flight += 1
        try:
            self.refuse(scope)
            preflight = self.cors.preflight_headers(record.method, sent)
            if preflight is None:
                await self.pass_on(self.application_of(scope), scope, receive, send_with_headers)
            else:
                await _respond(send_with_headers, 204, preflight)
        except GatewayError as error:
            await self.fail(error, record, send_with_headers)
        except ClientGone:
            record.outcome = CLIENT_GONE
            await _respond(send_with_headers, CLIENT_GONE_STATUS, [])
        except Exception:
            log.exception("internal_error", request_id=record.request_id)
            failure = InternalError(record.request_id)
            if record.status:  # the client has the response's head already: it cannot get another
                record.status, record.outcome = failure.status, failure.outcome
            else:
                await self.fail(failure, record, send_with_headers)
        finally:
            self.metrics.http.num_in_flight -= 1
            self.finish(scope, record)

    def target_of(self, path: str) -> RequestTarget:
        """The route for a path. A door's own path needs no rewriting, which takes 2 microseconds."""
        return RequestTarget(path) if path in self.doors else target_of(path, has_tei=self.has_tei)

    def error_format_of(self, target: RequestTarget, method: str) -> ErrorFormat:
        """The format of this path; else that of all below its first segment, as "/api/", where every path is another server's.

        A door that only a POST enters leaves the format of a page with the same path as it is. Below /tei/{model} a path that TEI
        shares with other servers is known to be TEI's, by "/tei" before it.
        """
        path = target.path
        if path == "/" and method != "POST":
            return openai_error
        if target.is_tei and (own := self.formats.get(f"/tei{path}")):
            return own
        return self.formats.get(path) or self.formats.get(path[: path.find("/", 1) + 1], openai_error)

    def begin(self, scope: HTTPScope, headers: Headers) -> RequestRecord:
        """Rewrites the scope's path to that of its route, and puts a new record into the scope."""
        client_id = value_of(headers, b"x-request-id")
        target = self.target_of(scope["path"])
        record = RequestRecord(
            request_id_from(client_id.decode("latin-1") if client_id is not None else None),
            method=scope["method"],
            path=scope["path"],
            path_model=target.model,
            client=self.proxies.client_of(scope),
            error_format=self.error_format_of(target, scope["method"]),
        )
        if self.tracing is not None and target.path not in PROBES:
            record.span = self.tracing.begin(record.method, headers)
        scope["state"] = {**(scope.get("state") or {}), "record": record}
        scope["path"], scope["raw_path"] = target.path, target.path.encode()
        if record.method == "HEAD":
            scope["method"] = "GET"
        return record

    def application_of(self, scope: HTTPScope) -> ASGIApp:
        return self.doors.get(scope["path"], self.app) if scope["method"] == "POST" else self.app

    def with_methods(self, headers: Iterable[tuple[bytes, bytes]], scope: HTTPScope) -> Headers:
        """Sets `Allow` of an OPTIONS response to all methods of the path: Litestar's own has one handler's."""
        allow = self.methods.get(str(scope.get("path_template"))) if scope["method"] == "OPTIONS" else None
        return [*headers] if allow is None else [*(each for each in headers if each[0] != b"allow"), (b"allow", allow.encode())]

    async def pass_on(self, app: ASGIApp, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Calls an application. Raises Overloaded if the shutdown cancels it: uvicorn by itself would send a 500 in plain text."""
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            if record_of(scope).status:
                raise
            raise Overloaded("It is shutting down.") from None

    def refuse(self, scope: HTTPScope) -> None:
        """Checks what the headers alone decide. Raises Overloaded, HeadersTooLarge."""
        if scope["path"] not in PROBES:
            if self.is_draining():
                raise Overloaded("It is shutting down.")
            if refusal := scope["state"].get("no_slot"):
                self.metrics.http.connections_cut.labels(refusal).inc()
                raise too_many(refusal)
        num_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        if num_bytes + sum([len(name) + len(value) for name, value in scope["headers"]]) > self.settings.max_header_bytes:
            raise HeadersTooLarge(self.settings.max_header_bytes)

    async def fail(self, error: GatewayError, record: RequestRecord, send: Send) -> None:
        record.fail(error)
        shown = record.error_format(error)
        headers = [("content-type", shown.content_type), ("content-length", str(len(shown.body))), *error.headers().items()]
        if isinstance(error, Overloaded | HeadersTooLarge) and not self.is_leaving():
            headers.append(("connection", "close"))
        await _respond(send, shown.status, [(name.lower().encode(), value.encode()) for name, value in headers], shown.body)

    def own_headers(self, record: RequestRecord, path: str) -> Headers:
        headers = [(b"x-request-id", record.request_id.encode()), *(OWN_HEADERS if path.startswith(DOCS) else PRIVATE_HEADERS)]
        if record.outcome == "ok":
            headers.append((b"openai-processing-ms", str(round(MILLISECONDS * record.seconds)).encode()))
        if record.lease is not None:
            headers += limit_headers(record.lease)
        if self.is_leaving():  # the client's next request opens a new connection, which a load balancer sends to another replica
            headers.append((b"connection", b"close"))
        return headers

    def finish(self, scope: HTTPScope, record: RequestRecord) -> None:
        method = record.method if record.method in METHODS else "other"
        route = str(scope.get("path_template") or (scope["path"] if scope["path"] in self.methods else "unmatched"))
        self.metrics.http.record_response(route, method, str(record.status), seconds=record.seconds)
        if route in self.doors and method == "POST":
            self.metrics.models.record_outcome(record.model or "unknown", record.outcome)
            self.count_for_key(record)
        if record.is_rejected:  # a probe's 503 is none
            self.metrics.http.rejections.labels(record.outcome).inc()
        write = log.debug if route in QUIET else log.info
        if route in QUIET or record.caller is not None or self.sampler.has_room(record.outcome):
            write("request", method=method, route=route, **record.line())
        record.end_span(route, method)

    def count_for_key(self, record: RequestRecord) -> None:
        """Counts the request for its key, and its refusal if the key's limits or an overload refused it."""
        if record.caller is None:
            return
        key = self.metrics.access.of_key(record.caller)
        key.requests.inc()
        if record.status in REFUSALS or record.outcome == RequestExceedsLimit.code:
            key.refusals_of(record.outcome).inc()


def _keep_alive_headers(seconds: float) -> Headers:
    """Returns the `Keep-Alive` header. Its timeout is less than the real one, so that the client's pool closes first."""
    timeout_seconds = int(KEEP_ALIVE_SHARE * seconds)
    return [(b"keep-alive", b"timeout=%d" % timeout_seconds)] if timeout_seconds else []


def ends(scope: HTTPScope) -> bool:
    """Whether the connection closes after this response: the client asked for it, or there is no slot for the connection."""
    if scope["http_version"] != "1.1" or scope["state"].get("no_slot"):
        return True
    connection = [value for name, value in scope["headers"] if name == b"connection"]
    return any(b"close" in value.lower() for value in connection)


async def _respond(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
