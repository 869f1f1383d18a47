"""Requests that a front relays: answered by the engine process's own application, with bodies of any size in both directions."""

import asyncio

import msgspec
import pytest

from gateway.calls.engine_message import BODY_WINDOW, CallFailure, HTTPBody, HTTPCall, HTTPCredit, HTTPResult
from gateway.calls.message import CancelCall
from gateway.config import DoorSettings, ServerSettings
from gateway.tests.processes.engine_links import BOUND_SECONDS, KEY, running

BOUNDARY = b"--x"
FORM = (
    BOUNDARY + b'\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    + BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
)  # fmt: skip


@pytest.fixture
async def engine(tmp_path):
    async with running(tmp_path, server=ServerSettings(port=0, docs=True), doors=DoorSettings()) as engine:
        yield engine


@pytest.fixture
async def front(engine):
    front = await engine.front()
    yield front
    front.channel.close()


def begin(front, path, *, method="GET", key=KEY, headers=(), has_more=False, payload=b"", **more):
    number = front.channel.new_number()
    own = [(b"authorization", f"Bearer {key}".encode())] if key else []
    front.channel.send(
        HTTPCall(
            number=number, request_id="req_1", method=method, path=path, raw_path=path.encode(), query_string=b"",
            headers=[(b"host", b"here"), *own, *headers], client=("127.0.0.1", 9), server=("here", 80), has_more=has_more, **more,
        ),
        payload,
    )  # fmt: skip
    return number


async def taken(front, number):
    """The head of a response and its whole body, of which each part is taken as it comes."""
    head = await front.hear(HTTPResult, number)
    body, has_more = bytes(front.payload), head.has_more
    while has_more:
        front.channel.send(HTTPCredit(number=number, num_bytes=len(front.payload)))
        part = await front.hear(HTTPBody, number)
        body, has_more = body + front.payload, part.has_more
    return head, body


async def until(is_true):
    async with asyncio.timeout(BOUND_SECONDS):
        while not is_true():
            await asyncio.sleep(0.002)


async def test_a_route_of_the_application(front):
    head, body = await taken(front, begin(front, "/v1/models"))
    assert (head.status, head.route, head.outcome, head.is_rejected) == (200, "/v1/models", "ok", False)
    assert head.caller.startswith("env-")
    assert [model["id"] for model in msgspec.json.decode(body)["data"]] == ["fake", "m", "org/m"]


async def test_a_key_is_needed_as_ever(front):
    head, body = await taken(front, begin(front, "/v1/models", key=None))
    assert (head.status, head.outcome, head.caller) == (401, "missing_api_key", None)
    assert msgspec.json.decode(body)["error"]["code"] is None


@pytest.mark.parametrize(("path", "start"), [("/v1/nothing", b'{"error":{"message":"Invalid URL'), ("/api/nothing", b'{"error":"')])
async def test_an_error_has_the_format_of_its_path(front, path, start):
    head, body = await taken(front, begin(front, path))
    assert (head.status, head.outcome, head.route) == (404, "unknown_url", "")
    assert body.startswith(start)


async def test_a_long_response_waits_until_its_reader_takes_it(front):
    number = begin(front, "/openapi.json")
    head = await front.hear(HTTPResult, number)
    num_bytes, has_more = len(front.payload), head.has_more
    while num_bytes < BODY_WINDOW:
        await front.hear(HTTPBody, number)
        num_bytes += len(front.payload)
    assert (num_bytes, has_more) == (BODY_WINDOW, True)
    await taken(front, begin(front, "/v1/models"))  # what waits holds up nothing else
    assert front.pushed.empty()
    front.channel.send(HTTPCredit(number=number, num_bytes=num_bytes))
    while has_more:
        part = await front.hear(HTTPBody, number)
        front.channel.send(HTTPCredit(number=number, num_bytes=len(front.payload)))
        num_bytes, has_more = num_bytes + len(front.payload), part.has_more
    [length] = [int(value) for name, value in head.headers if name == b"content-length"]
    assert num_bytes == length


async def test_a_long_body_is_taken_part_by_part(front):
    content = b"x" * (3 * BODY_WINDOW)
    whole = FORM + content + b"\r\n" + BOUNDARY + b"--\r\n"
    headers = [(b"content-type", b"multipart/form-data; boundary=x"), (b"content-length", str(len(whole)).encode())]
    number = begin(front, "/v1/files", method="POST", headers=headers, has_more=True)
    credit, start = BODY_WINDOW, 0
    assert (await front.hear(HTTPCredit, number)).num_bytes == 0  # the application asks for the body
    while start < len(whole):
        if credit <= 0:
            credit += (await front.hear(HTTPCredit, number)).num_bytes
            continue
        part = whole[start : start + credit]
        start, credit = start + len(part), credit - len(part)
        front.channel.send(HTTPBody(number=number, has_more=start < len(whole)), part)
    head, body = await taken(front, number)
    assert (head.status, msgspec.json.decode(body)["bytes"]) == (200, len(content))


async def test_a_client_who_leaves_cancels_the_request(engine, front):
    headers = [(b"content-type", b"multipart/form-data; boundary=x"), (b"content-length", b"1000")]
    number = begin(front, "/v1/files", method="POST", headers=headers, has_more=True)
    await front.hear(HTTPCredit, number)
    connection = engine.fronts.connections[0]
    assert number in connection.requests
    front.channel.send(CancelCall(number=number))
    await until(lambda: engine.gateway.generation.num_requests == 1)  # the front's hold
    assert (connection.requests, connection.calls.cancellations) == ({}, {})


async def test_a_client_who_leaves_at_once_leaves_nothing_behind(engine, front):
    number = begin(front, "/v1/models")
    front.channel.send(CancelCall(number=number))  # in one piece with the call
    await taken(front, begin(front, "/v1/models"))
    connection = engine.fronts.connections[0]
    assert (connection.requests, connection.calls.cancellations) == ({}, {})


async def test_a_defect_is_a_failure_of_its_request(engine, front):
    async def broken(_scope, _receive, _send):
        raise ValueError("nobody thought of this")

    engine.gateway.generation.app.app = broken
    begin(front, "/v1/models")
    assert (await front.hear(CallFailure)).error == "InternalError"
