"""The relay: a front's application for every request that it does not answer itself. The engine process answers these.

A body is sent in parts, in both directions, of which at most BODY_WINDOW bytes are under way: neither process keeps more of a
body whose receiver is slow.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from gateway.api.request_log import RequestRecord, record_of
from gateway.background import launch
from gateway.calls.channel import ChannelClosed
from gateway.calls.engine_message import BODY_WINDOW, CallFailure, HTTPBody, HTTPCall, HTTPCredit, HTTPResult
from gateway.calls.failure import error_of
from gateway.calls.message import CancelCall
from gateway.errors import ClientGone, EngineUnavailable, InternalError
from gateway.processes.engine_client import EngineClient, EngineFailed

if TYPE_CHECKING:
    from gateway.access.limits.concurrency_queue import OnDisconnect


class Relay:
    """An ASGI application below Edge."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            self.client.refuse_unusable()
            await _Exchange(self.client, scope, receive, send).run()


class _Exchange:
    """One request and its response. `arrived` has what the engine process sent and what the client has not got yet."""

    def __init__(self, client: EngineClient, scope: HTTPScope, receive: Receive, send: Send) -> None:
        self.client = client
        self.scope = scope
        self.receive = receive
        self.send = send
        self.record: RequestRecord = record_of(scope)
        self.number = client.channel.new_number()
        self.arrived: deque[tuple[Any, bytes]] = deque()
        self.has_arrived = asyncio.Event()
        self.credit = BODY_WINDOW
        self.has_credit = asyncio.Event()
        self.uploading: asyncio.Task[None] | None = None
        self.has_left = self.is_lost = False
        self.has_body = _has_body(scope)

    async def run(self) -> None:
        """Raises the engine process's error, EngineUnavailable, and ClientGone."""
        entries: OnDisconnect = self.scope["state"].get("on_disconnect", [])
        entries.append(self.leave)
        self.client.exchanges[self.number] = self.on_message
        is_over = False
        try:
            self.client.send(self.call())
            await self.respond()
            is_over = True
        finally:
            del self.client.exchanges[self.number]
            entries.remove(self.leave)
            if self.uploading is not None:
                self.uploading.cancel()
            if not is_over:
                self.client.send(CancelCall(number=self.number))

    def call(self) -> HTTPCall:
        scope, record = self.scope, self.record
        return HTTPCall(
            number=self.number,
            request_id=record.request_id,
            method=scope["method"],
            path=scope["path"],
            raw_path=scope["raw_path"],
            query_string=scope["query_string"],
            headers=list(scope["headers"]),
            http_version=scope["http_version"],
            scheme=scope["scheme"],
            client=scope["client"],
            server=scope["server"],
            root_path=scope.get("root_path", ""),
            original_path=record.path,
            path_model=record.path_model,
            has_more=self.has_body,
        )

    def on_message(self, message: Any, payload: bytes) -> None:
        """Takes what the engine process sends for this request; None once that process is gone."""
        if isinstance(message, HTTPCredit):
            self.credit += message.num_bytes
            self.has_credit.set()
            if self.uploading is None and self.has_body:
                self.uploading = launch(self.upload(), name="upload", is_awaited=False)
            return
        self.is_lost = self.is_lost or message is None
        self.arrived.append((message, payload))
        self.has_arrived.set()

    def leave(self) -> None:
        self.has_left = True
        self.has_arrived.set()

    async def next(self) -> tuple[Any, bytes]:
        """The next part of the response. Raises ClientGone, EngineUnavailable, and the engine process's error."""
        while not self.arrived and not self.has_left:
            self.has_arrived.clear()
            await self.has_arrived.wait()
        if self.has_left:
            raise ClientGone
        message, payload = self.arrived.popleft()
        if message is None:
            if self.record.status:  # the client has the head: it must see that the body is cut short
                raise ChannelClosed
            raise EngineUnavailable
        if isinstance(message, CallFailure):
            error = error_of(message.error, message.attributes)
            raise EngineFailed("the engine process has logged why") if type(error) is InternalError else error
        return message, payload

    async def respond(self) -> None:
        head, payload = await self.next()
        self.note(head)
        await self.send({"type": "http.response.start", "status": head.status, "headers": head.headers})
        has_more = head.has_more
        await self.send_part(payload, has_more=has_more)
        while has_more:
            part, payload = await self.next()
            has_more = part.has_more
            await self.send_part(payload, has_more=has_more)

    def note(self, head: HTTPResult) -> None:
        """Fills in the request's record and its route, for Edge."""
        self.record.outcome, self.record.is_rejected, self.record.caller = head.outcome, head.is_rejected, head.caller
        if head.route:
            self.scope["path_template"] = head.route

    async def send_part(self, payload: bytes, *, has_more: bool) -> None:
        await self.send({"type": "http.response.body", "body": payload, "more_body": has_more})
        if has_more and payload:
            self.client.send(HTTPCredit(number=self.number, num_bytes=len(payload)))

    async def upload(self) -> None:
        """Sends the client's body as far as there is credit, and then watches the client."""
        has_more = True
        while (message := await self.receive())["type"] == "http.request":
            if has_more:
                has_more = message["more_body"]
                await self.send_body(message["body"], has_more=has_more)
        self.leave()

    async def send_body(self, body: bytes, *, has_more: bool) -> None:
        start, is_last = 0, False
        while not is_last:
            while self.credit <= 0:
                self.has_credit.clear()
                await self.has_credit.wait()
            part = body[start : start + self.credit]
            start += len(part)
            self.credit -= len(part)
            is_last = start >= len(body)
            self.client.send(HTTPBody(number=self.number, has_more=has_more or not is_last), part)


def _has_body(scope: HTTPScope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0") for name, value in scope["headers"]
    )
