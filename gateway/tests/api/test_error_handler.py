"""The contract's table of errors, row by row, as the server answers them."""

import asyncio
import re

import pytest

from gateway.errors import Overloaded, Unembeddable
from gateway.tests.api.conftest import KEY, Connection, client_of

INVALID = "invalid_request_error"


def body(**fields):
    return {"json": {"model": "m", "input": "a", **fields}}


def raw(content):
    return {"content": content}


# what is sent, status, type, param, code, what the message holds
BAD_REQUESTS = {
    "not JSON": (raw(b"{"), 400, INVALID, None, "invalid_json", "could not parse the JSON body"),
    "not UTF-8": (raw(b'{"model": "m", "input": "\xff"}'), 400, INVALID, None, "invalid_json", "could not parse the JSON body"),
    "too deep": (raw(b'{"x":' + b"[" * 90_000), 400, INVALID, None, "invalid_json", "could not parse the JSON body"),
    "NaN": (raw(b'{"model": "m", "input": NaN}'), 400, INVALID, None, "invalid_json", "could not parse the JSON body"),
    "empty": (raw(b""), 400, INVALID, None, "invalid_json", "could not parse the JSON body"),
    "no input": ({"json": {"model": "m"}}, 400, INVALID, "input", "missing_required_parameter", "input"),
    "no model": ({"json": {"input": "a"}}, 400, INVALID, "model", "missing_required_parameter", "model"),
    "null model": (body(model=None), 400, INVALID, "model", "missing_required_parameter", "model"),
    "wrong type": (body(dimensions="3"), 400, INVALID, "dimensions", "invalid_type", "expected an integer"),
    "mixed": (body(input=["a", 1]), 400, INVALID, "input", "invalid_type", "mixture"),
    "a boolean": (body(input=[True]), 400, INVALID, "input", "invalid_type", "boolean"),
    "empty string": (body(input=""), 400, INVALID, "input", "invalid_value", "input cannot be an empty string"),
    "empty string in a list": (body(input=["a", ""]), 400, INVALID, "input", "invalid_value", "input[1]"),
    "empty list": (body(input=[]), 400, INVALID, "input", "invalid_value", "must not be empty"),
    "an id out of range": (body(input=[[1], [100_256]]), 400, INVALID, "input", "invalid_value", "input[1]"),
    "too many": (body(input=["a"] * 2049), 400, INVALID, "input", "array_above_max_length", "array length must be 2048 or less."),
    "an input too long": (
        body(input=[[1], [1] * 8193]), 400, INVALID, "input", "context_length_exceeded",
        "Invalid 'input[1]': maximum input length is 8192 tokens.",
    ),
    "too large dimensions": (body(dimensions=9), 400, INVALID, "dimensions", "invalid_value", "Must be less than or equal to 8"),
    "no dimensions": (body(dimensions=0), 400, INVALID, "dimensions", "invalid_value", "greater than or equal to 1"),
    "bad format": (
        body(encoding_format="int8"), 400, INVALID, "encoding_format", "invalid_value", "Supported values: 'float', 'base64'.",
    ),
    "unknown model": (
        body(model="x"), 404, INVALID, "model", "model_not_found", "The model `x` does not exist or you do not have access to it.",
    ),
    "too large": (raw(b" " * 100_001), 413, INVALID, None, "request_too_large", "100000 bytes"),
}  # fmt: skip


def error_of(reply):
    """The error, which always has its four keys in this order, and an id to ask about."""
    assert list(reply.json()) == ["error"]
    assert list(reply.json()["error"]) == ["message", "type", "param", "code"]
    assert reply.headers["x-request-id"]
    assert reply.headers["openai-version"] == "2020-10-01"
    assert "openai-processing-ms" not in reply.headers
    return reply.json()["error"]


def assert_error(reply, status, kind, param, code, message):
    error = error_of(reply)
    assert (reply.status_code, error["type"], error["param"], error["code"]) == (status, kind, param, code)
    assert message in error["message"]


@pytest.mark.parametrize("row", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
async def test_a_bad_request_is_told_what_is_wrong(client, row):
    sent, *expected = row
    assert_error(await client.post("/v1/embeddings", **sent), *expected)
    assert (await client.post("/v1/embeddings", **body())).status_code == 200


async def test_too_many_ids_in_all(make):
    gateway = make()
    await gateway.start()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        reply = await client.post("/v1/embeddings", **body(input=[[1] * 8192] * 37))
    await gateway.close()
    assert_error(reply, 400, "max_tokens_per_request", None, "max_tokens_per_request", "max 300000 tokens per request")


async def test_no_key(stranger):
    reply = await stranger.post("/v1/embeddings", **body())
    assert_error(reply, 401, INVALID, None, None, "You didn't provide an API key.")


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-gw-abcdefghij-0123456789012345678901234567890123456789xyz"},
        {"api-key": "sk-gw-abcdefghij-0123456789012345678901234567890123456789xyz"},
    ],
)
async def test_a_wrong_key_is_shown_masked(stranger, headers):
    reply = await stranger.post("/v1/embeddings", **body(), headers=headers)
    assert_error(reply, 401, INVALID, None, "invalid_api_key", "Incorrect API key provided: sk-gw-ab***yz.")


async def test_two_different_keys(stranger):
    reply = await stranger.post("/v1/embeddings", **body(), headers={"authorization": f"Bearer {KEY}", "api-key": "other"})
    assert_error(reply, 401, INVALID, None, "invalid_api_key", "different keys")


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"bearer {KEY}"},
        {"authorization": f"BEARER  {KEY} "},
        {"api-key": KEY},
        {"x-api-key": KEY},
        {"authorization": f"Bearer {KEY}", "x-api-key": KEY},
    ],
)
async def test_a_key_is_taken_from_each_header(stranger, headers):
    assert (await stranger.post("/v1/embeddings", **body(), headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/foo", "/v1/images", "/v1/chat/completions", "/%00", "/v1/embeddings/x"])
async def test_an_unknown_path(stranger, path):
    reply = await stranger.post(path)
    assert_error(reply, 404, INVALID, None, "unknown_url", "Invalid URL (POST /")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "BREW"])
async def test_a_wrong_method(stranger, method):
    reply = await stranger.request(method, "/v1/embeddings")
    assert_error(reply, 405, INVALID, None, "method_not_allowed", f"Not allowed to {method} on /v1/embeddings.")
    assert "POST" in reply.headers["allow"]


async def test_headers_too_large(stranger):
    reply = await stranger.get("/v1/models", headers={"x-big": "x" * 40_000})
    assert_error(reply, 431, INVALID, None, "headers_too_large", "32768 bytes")


async def test_a_body_sent_too_slowly(gateway):
    never = asyncio.Event().wait
    slow = Connection({"type": "http.request", "body": b'{"model"', "more_body": True}, never)
    await gateway(slow.scope, slow.receive, slow.send)
    assert slow.status == 408
    assert (b"connection", b"close") in slow.sent[0]["headers"]
    assert b'"code":"request_timeout"' in slow.body


async def test_a_model_still_loading(make):
    gateway = make()
    await gateway.start()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        reply = await client.post("/v1/embeddings", **body())
        assert_error(reply, 503, "server_error", None, "model_loading", "still loading")
        assert 1 <= int(reply.headers["retry-after"]) <= 59
        assert (await client.get("/v1/models")).json()["data"][0]["state"] == "loading"
    await gateway.close()


async def test_a_key_store_away_too_long(gateway, client):
    gateway.access_control.snapshot.read_at -= 61
    gateway.access_control.snapshot.background.task.cancel()
    assert_error(await client.post("/v1/embeddings", **body()), 503, "server_error", None, "store_unavailable", "try again")


async def test_a_full_server(gateway, client, embedder):
    embedder.raises = Overloaded(retry_after_seconds=300)
    reply = await client.post("/v1/embeddings", **body())
    assert_error(reply, 503, "server_error", None, "server_overloaded", "The server is currently overloaded")
    assert reply.headers["retry-after"] == "59"


async def test_a_draining_server(gateway, client):
    gateway.drain()
    reply = await client.post("/v1/embeddings", **body())
    assert_error(reply, 503, "server_error", None, "server_overloaded", "shutting down")
    assert reply.headers["connection"] == "close"
    assert (await client.get("/readyz")).json() == {"status": "draining"}
    assert (await client.get("/livez")).status_code == 200


async def test_a_deadline_that_passed(make, embedder):
    from gateway.config import ServerSettings

    gateway = make(server=ServerSettings(request_timeout_seconds=0.05))
    await gateway.start()
    await gateway.load()
    embedder.gate = asyncio.Event()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        reply = await client.post("/v1/embeddings", **body())
    assert_error(reply, 503, "server_error", None, "timeout", "waited longer")
    assert "retry-after" in reply.headers
    await asyncio.sleep(0)  # the work is a task of its own, and ends in the loop's next turn
    assert embedder.num_cancelled == 1
    await gateway.close()


async def test_an_input_without_a_vector(client, embedder):
    embedder.raises = Unembeddable("input[3]")
    reply = await client.post("/v1/embeddings", **body())
    assert_error(reply, 500, "server_error", "input", "unembeddable_input", "input[3]")
    assert reply.headers["x-should-retry"] == "false"


async def test_our_own_fault_tells_an_id_and_nothing_else(client, embedder):
    embedder.raises = RuntimeError("secret insides of /some/path.py")
    reply = await client.post("/v1/embeddings", **body())
    assert_error(reply, 500, "server_error", None, "internal_error", "The server had an error while processing your request.")
    assert reply.headers["x-request-id"] in reply.json()["error"]["message"]
    assert not re.search(r"secret|path|RuntimeError", reply.text)


CHALLENGE = 'Bearer realm="embeddings gateway"'


@pytest.mark.parametrize(
    ("headers", "path", "expected"),
    [
        ({}, "/v1/embeddings", CHALLENGE),
        ({"api-key": "wrong" * 8}, "/v1/embeddings", f'{CHALLENGE}, error="invalid_token"'),
        ({"authorization": "Bearer one", "api-key": "two"}, "/v1/models", f'{CHALLENGE}, error="invalid_token"'),
        ({}, "/v1/models?api_key=abc", CHALLENGE),
        ({}, "/page/live", CHALLENGE),
        ({"authorization": "Basic dXNlcjpwYXNz"}, "/v1/embeddings", None),
    ],
)
async def test_every_401_says_how_to_authenticate(stranger, headers, path, expected):
    reply = await stranger.request("POST" if path == "/v1/embeddings" else "GET", path, headers=headers)
    assert reply.status_code == 401
    assert reply.headers.get_list("www-authenticate") in ([expected], [CHALLENGE] if expected is None else [])
    assert "Basic" not in reply.headers["www-authenticate"]


async def test_another_content_encoding_is_told_which_there_are(client):
    for encoding in ("br", "deflate", "zstd", "gzip, gzip"):
        reply = await client.post("/v1/embeddings", content=b"{}", headers={"content-encoding": encoding})
        assert (reply.status_code, reply.json()["error"]["code"]) == (415, "unsupported_encoding")
        assert reply.headers["accept-encoding"] == "gzip, identity"
