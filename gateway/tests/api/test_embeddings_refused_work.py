"""Work that was done and then refused costs a key's tokens a minute: so much as was done, at most a burst; no budget, no usage."""

import asyncio
import gzip
import json

import pytest

from gateway.access.limits.limiter import BYTES_PER_TOKEN
from gateway.api.body import MAX_MEMBERS, PIECE_BYTES, decompress
from gateway.config import LimitSettings, ServerSettings
from gateway.errors import BodyTooLarge, InputTooLong, InvalidJSON, RequestTooLong
from gateway.tests.api.conftest import KEY, Connection, client_of

MB = 1024 * 1024
BURST = 10_000
MAX_BYTES = 2 * MB


@pytest.fixture
async def limited(make):
    """A gateway whose keys have a limit of tokens, and its client."""
    gateway = make(limits=LimitSettings(tokens_per_minute=60, tokens_burst=BURST), server=ServerSettings(max_body_bytes=MAX_BYTES))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        yield gateway, client
    await gateway.close()


def used(gateway):
    """Tokens of the one key's limit that are used up; one is paid back each second."""
    [meter] = gateway.generation.limiter.store.meters.values()
    return round(meter.tokens_debt / 60_000_000)


async def sent(client, content, **headers):
    return await client.post("/v1/embeddings", content=content, headers={"content-type": "application/json", **headers})


def body(**fields):
    return json.dumps({"model": "m", "input": "a", **fields}).encode()


LARGE = b" " * MB
REFUSED = {
    "broken JSON": (body() + LARGE + b"x", "invalid_json"),
    "no UTF-8": (body()[:-1] + LARGE + b"\xff", "invalid_json"),
    "too many inputs": (b'{"model": "m", "input": [' + b'"a",' * (MB // 4) + b'"a"]}', "array_above_max_length"),
    "too many ids": (body(input=[[1] * 8193]) + LARGE, "context_length_exceeded"),
    "an empty input, the last of many": (body(input=["a"] * 2047 + [""]) + LARGE, "invalid_value"),
    "an input of another type, the last of many": (body(input=["a"] * 2047 + [5]) + LARGE, "invalid_type"),
    "an unknown model": (body(model="other") + LARGE, "model_not_found"),
    "dimensions beyond the model's": (body(dimensions=9) + LARGE, "invalid_value"),
    "no input": (b'{"model": "m"' + LARGE + b"}", "missing_required_parameter"),
}


@pytest.mark.parametrize(("content", "code"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gzip"])
async def test_a_body_that_is_decoded_and_refused_costs_its_bytes(limited, content, code, is_packed):
    gateway, client = limited
    packed = gzip.compress(content, 1)
    reply = await sent(client, packed if is_packed else content, **({"content-encoding": "gzip"} if is_packed else {}))
    assert reply.json()["error"]["code"] == code
    price = len(content) // BYTES_PER_TOKEN
    assert price >= MB // BYTES_PER_TOKEN - 1
    assert abs(used(gateway) - price) <= 5
    assert int(reply.headers["x-ratelimit-remaining-tokens"]) == BURST - price


BOMBS = {
    "too large": (gzip.compress(b" " * (MAX_BYTES + 1)), "request_too_large", MAX_BYTES + 1),
    "cut short": (gzip.compress(LARGE)[:-9], "invalid_json", MB - PIECE_BYTES),
    "broken at its end": (gzip.compress(LARGE)[:-8] + b"12345678", "invalid_json", MB - PIECE_BYTES),
    "followed by nonsense": (gzip.compress(LARGE) + b"nonsense", "invalid_json", MB),
}


@pytest.mark.parametrize(("packed", "code", "num_bytes"), BOMBS.values(), ids=BOMBS)
async def test_what_was_unpacked_of_broken_or_too_large_gzip_is_charged(limited, packed, code, num_bytes):
    gateway, client = limited
    reply = await sent(client, packed, **{"content-encoding": "gzip"})
    assert reply.json()["error"]["code"] == code
    told = int(reply.headers["x-ratelimit-remaining-tokens"])
    assert BURST - (num_bytes + PIECE_BYTES) // BYTES_PER_TOKEN <= told <= BURST - num_bytes // BYTES_PER_TOKEN
    assert abs(used(gateway) - (BURST - told)) <= 5
    assert gateway.admission.num_bytes_ever >= num_bytes  # so that their memory is given back


@pytest.mark.parametrize("error", [InputTooLong("input", 5), RequestTooLong("more than 5", 5)], ids=lambda error: error.code)
@pytest.mark.parametrize(("num_counted", "num_charged"), [(1234, 1234), (50 * BURST, BURST)], ids=["some", "more than a burst"])
async def test_tokens_that_were_counted_in_vain_are_charged_up_to_a_burst(limited, embedder, error, num_counted, num_charged):
    _, client = limited

    async def prepare(inputs):
        raise error.after(num_tokens=num_counted)

    embedder.prepare = prepare
    reply = await sent(client, body())
    assert reply.status_code == 400
    assert int(reply.headers["x-ratelimit-remaining-tokens"]) == BURST - num_charged
    if num_charged == BURST:
        assert (await sent(client, body())).status_code == 429  # before its body is read


async def test_what_can_never_fit_costs_the_burst(limited):
    _, client = limited
    reply = await sent(client, body(input="a " * (BURST + 1)))
    assert (reply.json()["error"]["code"], reply.headers["x-ratelimit-remaining-tokens"]) == ("request_exceeds_limit", "0")


async def test_a_small_mistake_and_a_429_cost_no_tokens(limited):
    _, client = limited
    for content in (b"{", body(input=""), body(model="other"), body(dimensions=0)):
        assert (await sent(client, content)).headers["x-ratelimit-remaining-tokens"] == str(BURST)
    assert (await sent(client, body(input="a " * 9000))).status_code == 200
    refused = await sent(client, body(input="b " * 9000))
    assert refused.status_code == 429
    assert 1000 <= int(refused.headers["x-ratelimit-remaining-tokens"]) < 2000


async def test_what_is_served_costs_its_tokens_and_no_bytes(limited):
    _, client = limited
    reply = await sent(client, body(input="a b c") + LARGE)
    assert (reply.status_code, reply.headers["x-ratelimit-remaining-tokens"]) == (200, str(BURST - 3))


async def test_refused_work_is_neither_usage_nor_budget(limited):
    gateway, client = limited
    for content, _ in REFUSED.values():
        await sent(client, content)
    assert gateway.access_control.recorder.pending == {}


async def test_who_leaves_while_it_is_worked_on_pays_for_the_bytes(limited, embedder):
    gateway, _ = limited
    started, forever = asyncio.Event(), asyncio.Event()

    async def prepare(inputs):
        started.set()
        await forever.wait()

    async def leaves():
        await started.wait()
        return {"type": "http.disconnect"}

    embedder.prepare = prepare
    whole = {"type": "http.request", "body": body() + LARGE, "more_body": False}
    connection = Connection(whole, leaves)
    await gateway(connection.scope, connection.receive, connection.send)
    assert abs(used(gateway) - MB // BYTES_PER_TOKEN) <= 5


def test_gzip_of_several_members_is_read_and_of_very_many_refused():
    parts = [b"one", b"", b"x" * 100_000, b"two"]
    assert decompress(b"".join(map(gzip.compress, parts)), max_bytes=MB) == b"".join(parts)
    assert decompress(gzip.compress(b"a") * MAX_MEMBERS, max_bytes=MB) == b"a" * MAX_MEMBERS
    with pytest.raises(InvalidJSON):  # of 16 MB, which took 150 seconds
        decompress(gzip.compress(b"") * 800_000, max_bytes=16 * MB)


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, MB, 3 * MB + 7])
def test_gzip_is_held_to_the_size_to_the_byte(size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert decompress(gzip.compress(content), max_bytes=size) == content
    if size:
        with pytest.raises(BodyTooLarge):
            decompress(gzip.compress(content), max_bytes=size - 1)
