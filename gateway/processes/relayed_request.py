"""One HTTPCall: a request that a front relays, answered by the engine process's own application.

Both bodies are streamed. At most BODY_WINDOW bytes of each are under way, so that a slow reader costs no memory here.
"""

import asyncio
from collections import deque
from typing import Any, cast

from litestar.types import HTTPScope, Message

from gateway.api.request_log import RequestRecord
from gateway.calls.engine_message import BODY_WINDOW, HTTPBody, HTTPCall, HTTPCredit, HTTPResult
from gateway.processes.front_calls import FrontCalls
from gateway.reload.generation import Generation

PIECE_BYTES = BODY_WINDOW // 4  # the longest part of a body that is sent at once


class RelayedRequest:
    """Used on the event loop only. `on_body` and `on_credit` take what the front sends after the call."""

    def __init__(self, call: HTTPCall, first: bytes, calls: FrontCalls) -> None:
        self.call = call
        self.calls = calls
        self.parts: deque[bytes] = deque([first] if first or not call.has_more else [])
        self.has_more = call.has_more
        self.is_wanted = False  # whether the application has asked for the body
        self.changed = asyncio.Event()  # a part arrived, or the front has taken some of the response
        self.under_way = 0  # bytes of the response's body that the front has not taken yet
        self.start: dict[str, Any] | None = None  # of the response, until its body begins
        self.record: RequestRecord

    async def answer(self, generation: Generation) -> None:
        """Lets a generation's application answer the request."""
        scope = self.scope(generation)
        generation.hold()
        try:
            await generation.app.app(scope, self.receive, lambda message: self.send(message, scope))  # type: ignore[arg-type]
        finally:
            generation.release()

    def scope(self, generation: Generation) -> HTTPScope:
        call, edge = self.call, generation.app
        original = call.original_path or call.path
        self.record = RequestRecord(
            call.request_id,
            method=call.method,
            path=original,
            path_model=call.path_model,
            client=call.client[0] if call.client else None,
            error_format=edge.error_format_of(edge.target_of(original), call.method),
        )
        scope: Any = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": call.http_version,
            "server": call.server,
            "client": call.client,
            "scheme": call.scheme,
            "method": call.method,
            "root_path": call.root_path,
            "path": call.path,
            "raw_path": call.raw_path,
            "query_string": call.query_string,
            "headers": call.headers,
            "state": {"record": self.record},
        }
        return cast("HTTPScope", scope)

    async def receive(self) -> Message:
        """ASGI's `receive`. A client that leaves cancels the whole request, so nothing follows the body."""
        if not self.is_wanted and self.has_more:
            self.calls.answer(
                HTTPCredit(number=self.call.number, num_bytes=0)
            )  # a front may wait for this: most routes take no body
        self.is_wanted = True
        while not self.parts:
            await self.wait()
        part = self.parts.popleft()
        if part:
            self.calls.answer(HTTPCredit(number=self.call.number, num_bytes=len(part)))
        is_last = not self.parts and not self.has_more
        return {"type": "http.request", "body": part, "more_body": not is_last}  # type: ignore[return-value, misc]

    async def send(self, message: Message, scope: HTTPScope) -> None:
        """ASGI's `send`."""
        event = cast("dict[str, Any]", message)
        if event["type"] == "http.response.start":
            self.start = event
            return
        body, has_more = event.get("body", b""), bool(event.get("more_body"))
        pieces = [body[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES)] or [b""]
        for index, piece in enumerate(pieces, start=1):
            while self.under_way + len(piece) > BODY_WINDOW:
                await self.wait()
            self.under_way += len(piece)
            self.send_piece(piece, scope, has_more=has_more or index < len(pieces))

    def send_piece(self, piece: bytes, scope: HTTPScope, *, has_more: bool) -> None:
        if self.start is None:
            self.calls.answer(HTTPBody(number=self.call.number, has_more=has_more), piece)
            return
        record, start = self.record, self.start
        self.start = None
        answer = HTTPResult(
            number=self.call.number,
            status=start["status"],
            headers=[(bytes(name), bytes(value)) for name, value in start["headers"]],
            has_more=has_more,
            outcome=record.outcome,
            route=str(scope.get("path_template") or ""),
            caller=record.caller,
            is_rejected=record.is_rejected,
        )
        self.calls.answer(answer, piece)

    def on_body(self, message: HTTPBody, part: bytes) -> None:
        self.parts.append(part)
        self.has_more = message.has_more
        self.changed.set()

    def on_credit(self, message: HTTPCredit) -> None:
        self.under_way -= message.num_bytes
        self.changed.set()

    async def wait(self) -> None:
        self.changed.clear()
        await self.changed.wait()
