"""Refusals in words that nobody listed: by whom, or by what, a request failed is found out by asking."""

import asyncio
import base64
import contextlib
import dataclasses
import json
import math
import random

import numpy as np
import pytest
import structlog.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.embedding.embedder import Inputs
from gateway.errors import DeadlinePassed, GatewayError, InputTooLong, Unembeddable, UpstreamError, UpstreamUnavailable
from gateway.metrics import Metrics
from gateway.testing import upstream_server as standin
from gateway.testing.upstream_server import Said, Standin
from gateway.tests.upstream.conftest import embedded, inputs, over, started, value_of
from gateway.upstream.breaker import Breaker, BreakerRules
from gateway.upstream.client import UpstreamClient
from gateway.upstream.dispatch import Dispatcher
from gateway.upstream.estimate import estimated_tokens
from gateway.upstream.failures import AttemptFailed, UpstreamInfo
from gateway.upstream.load_balancing import Endpoint, Endpoints
from gateway.upstream.openai import OPENAI
from gateway.upstream.probe import TEXTS
from gateway.upstream.refusal import NEVER_OF_INPUTS
from gateway.upstream.request_limits import RequestLimits
from gateway.upstream.settings import OpenAISettings
from gateway.upstream.splitter import RequestSplitter
from gateway.upstream.transport import UpstreamResponse

pytestmark = pytest.mark.timeout(120)

POISON = "poison"
PHRASES = ("zorp the quux", "nicht erlaubt", "", "Ошибка 7", "payload rejected by policy 9", '{"x"')
BODIES = (
    *({"error": {"message": phrase, "type": None, "code": None}} for phrase in PHRASES),
    b"",
    b"<html><body><h1>Something went wrong</h1></body></html>",
    {"detail": "wibble"},
    ["wobble"],
    b"plain nonsense",
    {"status": "KO", "reason": {"deep": [1, 2, 3]}},
)


@dataclasses.dataclass
class Rules:
    """What a server refuses. `status` and `body` are how; `dies_after` so many requests it answers nothing but 500."""

    max_inputs: int = 10**9
    max_bytes: int = 10**9
    max_tokens: int = 10**9
    bad: frozenset = frozenset({POISON})
    status: int = 400
    body: object = b""
    dies_after: int = 10**9

    def refuses(self, request):
        texts = request.body["input"]
        return (
            len(texts) > self.max_inputs
            or len(request.content) > self.max_bytes
            or sum(len(text) // 4 + 1 for text in texts) > self.max_tokens
            or not self.bad.isdisjoint(texts)
        )


def ruled(rules):
    num_asked = 0

    def answer(request):
        nonlocal num_asked
        if request.method == "GET":
            return Said(404)
        num_asked += 1
        if num_asked > rules.dies_after:
            return Said(500, b"")
        return Said(rules.status, rules.body) if rules.refuses(request) else standin.openai(request)

    return answer


def saying(status, body=b""):
    return lambda _: Said(status, body)


def texts_of(count, *, poisoned=(), chars=0):
    return [POISON if index in poisoned else f"text number {index} ".ljust(chars, "x") for index in range(count)]


def right(vectors, texts):
    np.testing.assert_allclose(vectors.rows, standin.vectors(texts), atol=1e-6)
    assert len(vectors.token_counts) == len(texts)


def extra(server):
    return len(server.requests) - 1


@pytest.mark.parametrize("status", [400, 413, 422, 424, 451, 500, 502, 520])
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
async def test_one_bad_input_is_named_whatever_the_server_says(status, body):
    async with over("openai", standin.openai) as (server, remote):
        server.answer = ruled(Rules(status=status, body=body))
        with pytest.raises((Unembeddable, InputTooLong), match=r"'input\[5\]'") as refused:
            await embedded(remote, *texts_of(7, poisoned={5}))
        is_too_large = status == 413
        assert isinstance(refused.value, InputTooLong if is_too_large else Unembeddable)
        if not is_too_large:
            assert refused.value.headers()["x-should-retry"] == "false"
        assert remote.endpoints.endpoints[0].breaker.num_in_a_row == 0
        server.requests.clear()
        right(await embedded(remote, "innocent"), ["innocent"])
        assert len(server.requests) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 9, 17, 33, 64, 100])
async def test_one_bad_input_of_n_costs_at_most_twice_the_logarithm_and_two(count):
    async with over("openai", standin.openai, retry=False) as (server, remote):
        for status in (400, 500):
            server.answer = ruled(Rules(status=status))
            for place in {0, count - 1, count // 2, count // 3}:
                server.requests.clear()
                with pytest.raises(Unembeddable, match=rf"'input\[{place}\]'"):
                    await embedded(remote, *texts_of(count, poisoned={place}))
                assert extra(server) <= 2 * math.log2(count) + 2


async def test_one_bad_input_among_2048():
    async with over("openai", standin.openai) as (server, remote):
        for place in (0, 1, 1023, 1024, 1365, 2047):
            server.answer = ruled(Rules(status=500))
            server.requests.clear()
            with pytest.raises(Unembeddable, match=rf"'input\[{place}\]'"):
                await embedded(remote, *texts_of(2048, poisoned={place}))
            assert extra(server) <= 24


async def test_of_two_bad_inputs_the_first_is_named():
    async with over("openai", standin.openai) as (server, remote):
        server.answer = ruled(Rules(status=422))
        with pytest.raises(Unembeddable, match=r"'input\[30\]'"):
            await embedded(remote, *texts_of(100, poisoned={30, 77}))


@pytest.mark.parametrize("most", [1, 2, 10, 16, 25, 96, 100])
@pytest.mark.parametrize(("status", "body"), [(400, BODIES[0]), (413, b"<html>413</html>"), (500, b"")])
async def test_how_many_inputs_it_takes_is_found_out_and_never_met_again(most, status, body):
    async with over("openai", standin.openai) as (server, remote):
        server.answer = ruled(Rules(max_inputs=most, status=status, body=body))
        texts = texts_of(200)
        with structlog.testing.capture_logs() as logs:
            right(await embedded(remote, *texts), texts)
        assert remote.health().learned == {"max_inputs": most}
        [told] = [each for each in logs if each["event"] == "upstream_limit_learned"]
        assert (told["setting"], told["value"], told["log_level"]) == ("max_inputs", most, "warning")
        assert f"max_inputs = {most}" in told["hint"]
        assert value_of(remote, "gateway_upstream_learned_limit", upstream="m", setting="max_inputs") == most
        server.requests.clear()
        right(await embedded(remote, *texts), texts)
        assert len(server.requests) == math.ceil(200 / most)


@pytest.mark.parametrize(("status", "body"), [(400, BODIES[1]), (413, b"<html>413 Request Entity Too Large</html>"), (500, b"")])
async def test_how_many_bytes_a_proxy_takes_is_found_out(status, body):
    async with over("openai", standin.openai) as (server, remote):
        server.answer = ruled(Rules(max_bytes=20_000, status=status, body=body))
        texts = texts_of(60, chars=1500)
        right(await embedded(remote, *texts), texts)
        learned = remote.health().learned
        assert set(learned) == {"max_body_bytes"}
        assert 16_000 <= learned["max_body_bytes"] <= 20_000
        server.requests.clear()
        right(await embedded(remote, *texts), texts)
        assert all(len(request.content) <= 20_000 for request in server.requests)
        server.requests.clear()
        few = texts_of(60)  # many inputs, few bytes
        right(await embedded(remote, *few), few)
        assert len(server.requests) == 1


async def test_how_many_tokens_it_takes_is_found_out():
    async with over("openai", standin.openai) as (server, remote):
        server.answer = ruled(Rules(max_tokens=16_384, status=400, body={"error": {"message": "zorp"}}))
        texts = texts_of(80, chars=2000)
        right(await embedded(remote, *texts), texts)
        assert set(remote.health().learned) == {"max_request_tokens"}
        assert 8_000 <= remote.health().learned["max_request_tokens"] <= 17_000
        server.requests.clear()
        right(await embedded(remote, *texts), texts)
        assert not any(Rules(max_tokens=16_384).refuses(request) for request in server.requests)


async def test_a_bad_input_and_a_limit_at_once():
    async with over("openai", standin.openai) as (server, remote):
        server.answer = ruled(Rules(max_inputs=10, status=400))
        with pytest.raises(Unembeddable, match=r"'input\[150\]'"):
            await embedded(remote, *texts_of(200, poisoned={150}))
        assert remote.health().learned == {"max_inputs": 10}


async def test_what_a_server_that_fails_by_itself_says_blames_no_input():
    for status, body in ((500, b""), (400, {"error": {"message": "Invalid model"}}), (502, b"<html>")):
        async with over("openai", standin.openai) as (server, remote):
            server.answer = saying(status, body)
            with pytest.raises(UpstreamError, match=f"status {status}"):
                await embedded(remote, *texts_of(64))
            assert extra(server) <= 3  # a retry of 502, half of them, and the known-good text


@pytest.mark.parametrize("status", sorted(NEVER_OF_INPUTS - {521, 522, 523, 524, 598, 599}))
async def test_what_is_no_matter_of_inputs_is_never_halved(status):
    async with over("openai", standin.openai, retry=False) as (server, remote):
        server.answer = lambda _: Said(status, b"")
        with pytest.raises((UpstreamError, UpstreamUnavailable)):
            await embedded(remote, *texts_of(64))
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 500])
async def test_whenever_a_server_dies_while_it_is_found_out_no_input_is_blamed(status):
    for alive in range(1, 16):
        async with over("openai", standin.openai, breaker_failures=100) as (server, remote):
            server.answer = ruled(Rules(status=status, dies_after=alive))
            with pytest.raises(GatewayError) as failed:
                await embedded(remote, *texts_of(32, poisoned={21}))
            if isinstance(failed.value, Unembeddable):
                assert "'input[21]'" in failed.value.message
            else:
                assert failed.value.status in {502, 503}


async def test_what_is_found_out_is_found_out_within_the_request_s_own_time():
    gate = asyncio.Event()
    async with over("openai", standin.openai) as (server, remote):

        def answer(request):
            said = ruled(Rules())(request)
            said.gate = gate if len(server.requests) > 3 else None
            return said

        server.answer = answer
        with pytest.raises(DeadlinePassed):
            await embedded(remote, *texts_of(64, poisoned={5}), seconds=0.5)
        assert len(server.requests) == 4
        gate.set()


async def test_a_failure_that_passes_is_no_limit_and_no_input_s_fault():
    async with over("openai", standin.openai) as (server, remote):
        for texts in (["a"], texts_of(9)):
            waiting = [Said(500, b"")]
            server.answer = lambda request, waiting=waiting: waiting.pop() if waiting else standin.openai(request)
            right(await embedded(remote, *texts), texts)
            assert remote.health().learned == {}


async def test_a_limit_that_a_client_wrote_and_a_server_repeats_is_not_learned():
    evil = "Array length must be 1 or less"

    def answer(request):
        is_bad = request.method == "POST" and evil in request.body["input"]
        return standin.openai_error(400, f"cannot read: {evil.lower()}") if is_bad else standin.openai(request)

    async with over("openai", answer) as (_, remote):
        with pytest.raises((Unembeddable, InputTooLong), match=r"'input\[2\]'"):
            await embedded(remote, "a", "b", evil, "c")
        assert remote.health().learned == {}


async def test_a_text_that_is_refused_for_its_length_is_told_a_limit_below_its_own():
    text = "word " * 200  # some 252 tokens

    async with over("openai", standin.openai) as (server, remote):
        server.answer = ruled(Rules(bad=frozenset({text}), status=413))
        with pytest.raises(InputTooLong, match=r"maximum input length is 251 tokens"):
            await embedded(remote, "a", text)


async def test_others_are_served_while_bad_inputs_come_without_end():
    async with over("openai", standin.openai) as (server, remote):
        server.answer = ruled(Rules(status=500, body={"error": {"code": 500, "message": "zorp", "type": "server_error"}}))

        async def guilty():
            with pytest.raises(Unembeddable):
                await embedded(remote, POISON)

        async def innocent(number):
            right(await embedded(remote, f"short {number}"), [f"short {number}"])

        await asyncio.gather(*(guilty() if number % 2 else innocent(number) for number in range(60)))
        assert remote.health().is_available


def dropping(is_refused):
    """Closes the connection without a reply, in place of a refusal."""

    def answer(request):
        if request.method == "GET":
            return Said(404)
        return Said(raw=b"", cut_at=0) if is_refused(request) else standin.openai(request)

    return answer


async def test_an_input_that_breaks_the_connection_is_named_and_locks_nobody_out():
    async with over("openai", standin.openai, breaker_failures=3) as (server, remote):
        server.answer = dropping(lambda request: POISON in request.body["input"])
        for _ in range(8):
            with pytest.raises(Unembeddable, match=r"'input\[0\]'"):
                await embedded(remote, POISON)
            right(await embedded(remote, "a"), ["a"])
        with pytest.raises(Unembeddable, match=r"'input\[5\]'"):
            await embedded(remote, *texts_of(7, poisoned={5}))


async def test_a_server_that_breaks_the_connection_over_large_requests_is_asked_for_less():
    async with over("openai", standin.openai) as (server, remote):
        server.answer = dropping(lambda request: len(request.body["input"]) > 10)
        texts = texts_of(40)
        right(await embedded(remote, *texts), texts)
        assert remote.health().learned == {"max_inputs": 10}
        server.requests.clear()
        right(await embedded(remote, *texts), texts)
        assert len(server.requests) == 4


async def test_a_connection_that_breaks_by_chance_blames_no_input():
    num_asked = 0

    def every_third(_):
        nonlocal num_asked
        num_asked += 1
        return num_asked % 3 == 0

    async with over("openai", standin.openai, breaker_failures=100) as (server, remote):
        server.answer = dropping(every_third)
        for count in (1, 2, 3, 8):
            with contextlib.suppress(UpstreamError):
                await embedded(remote, *texts_of(count))


async def test_inputs_that_a_server_hangs_on_lock_nobody_out_while_it_answers_others():
    gate = asyncio.Event()

    def answer(request):
        return Said(gate=gate) if POISON in request.body["input"] else standin.openai(request)

    async with over("openai", standin.openai, breaker_failures=3, read_timeout_seconds=0.5) as (server, remote):
        server.answer = answer
        hung = [asyncio.create_task(embedded(remote, POISON)) for _ in range(6)]
        while server.num_open < len(hung):
            server.came.clear()
            await server.came.wait()
        right(await embedded(remote, "a"), ["a"])
        for failed in await asyncio.gather(*hung, return_exceptions=True):
            assert isinstance(failed, UpstreamError)
            assert "did not answer in time" in failed.message
        [endpoint] = remote.endpoints.endpoints
        assert endpoint.breaker.state == "closed"
        assert endpoint.breaker.num_in_a_row == 0
        right(await embedded(remote, "b"), ["b"])


async def test_what_was_learned_is_forgotten_when_the_server_was_started_anew():
    async with Standin(standin.openai).serving() as server, started("openai", server, retry=False) as remote:
        server.answer = ruled(Rules(max_inputs=10))
        await embedded(remote, *texts_of(40))
        assert remote.health().learned == {"max_inputs": 10}
        endpoint = remote.endpoints.endpoints[0]
        url, endpoint.url = endpoint.url, endpoint.url.with_port(1)
        with pytest.raises(UpstreamUnavailable):
            await embedded(remote, "a")
        endpoint.url, server.answer = url, standin.openai
        await embedded(remote, "a")
        assert remote.health().learned == {}


async def test_what_was_learned_is_tried_again_after_an_hour():
    now = [0.0]
    async with over("openai", standin.openai, clock=lambda: now[0], probe_seconds=0) as (server, remote):
        server.answer = ruled(Rules(max_inputs=10))
        await embedded(remote, *texts_of(40))
        now[0] += 3000
        assert remote.health().learned == {"max_inputs": 10}
        now[0] += 3000
        assert remote.health().learned == {}


async def test_base64_that_a_server_no_longer_knows_is_found_out_in_any_words():
    def answer(request):
        return Said(400, b"zorp") if "encoding_format" in request.body else standin.openai(request)

    async with over("openai", standin.openai) as (server, remote):
        server.answer = answer
        right(await embedded(remote, "a", "b"), ["a", "b"])
        server.requests.clear()
        right(await embedded(remote, "a", "b"), ["a", "b"])
        assert len(server.requests) == 1


WORDS_FOR_TOO_LONG = [
    (
        500,
        {
            "error": {
                "code": 500,
                "message": "the request exceeds the available context size. try increasing it",
                "type": "server_error",
            }
        },
    ),
    (400, {"error": {"code": 400, "message": "zorp", "type": "exceed_context_size_error", "n_prompt_tokens": 1202, "n_ctx": 512}}),
    (500, {"error": {"code": 500, "message": "input (1202 tokens) is larger than the max context size (512 tokens). skipping"}}),
    (422, {"detail": [{"loc": ["body", "input"], "msg": "String should have at most 2000 characters", "type": "string_too_long"}]}),
    (400, {"code": "InvalidParameter", "message": "Range of input length should be [1, 2048]: exceeds the limit"}),
    (413, b"<html><body>413 Request Entity Too Large</body></html>"),
    (400, {"message": "too many tokens: total tokens exceed the model's limit"}),
    (400, {"error": {"code": "InvalidParameter", "message": "Range of input length should be [1, 8192]"}}),
]


@pytest.mark.parametrize(("status", "body"), WORDS_FOR_TOO_LONG)
async def test_an_input_whose_refusal_says_that_it_is_too_long_is_the_client_s_to_shorten(status, body):
    async with over("openai", standin.openai) as (server, remote):
        server.answer = ruled(Rules(status=status, body=body))
        for texts, name in (([POISON], r"input\[0\]"), (texts_of(9, poisoned={4}), r"input\[4\]")):
            with pytest.raises(InputTooLong, match=f"'{name}': maximum input length is"):
                await embedded(remote, *texts)
            assert remote.endpoints.endpoints[0].breaker.num_in_a_row == 0


POOL = [f"word {number} ".ljust(size, "y") for number, size in enumerate([8, 12, 20, 40, 80, 160, 240, 12, 30])]
ROWS = {text: standin.vectors([text])[0] for text in (*POOL, TEXTS[0])}
ENCODED = {text: base64.b64encode(row.tobytes()).decode() for text, row in ROWS.items()}
RULES = st.builds(
    Rules,
    max_inputs=st.sampled_from([1, 2, 3, 7, 10, 16, 10**9]),
    max_bytes=st.sampled_from([900, 2000, 10**9]),
    max_tokens=st.sampled_from([150, 400, 10**9]),
    bad=st.frozensets(st.sampled_from(POOL), max_size=2),
    status=st.sampled_from([400, 405, 409, 410, 413, 415, 418, 422, 424, 451, 500, 501, 502, 505, 520, 530]),
    body=st.sampled_from(BODIES),
)


METRICS = Metrics().of_model("m").of_upstream()  # of all of the servers: they are not what is asked for


class DirectTransport:
    """The way to a server without a network between: thousands of requests in a second."""

    def __init__(self, rules):
        self.rules = rules

    async def post(self, url, content, *, max_bytes, headers):
        request = standin.Request("POST", url.path, dict(headers), content)
        if self.rules.refuses(request):
            body = self.rules.body
            return UpstreamResponse(self.rules.status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())
        data = [{"index": index, "embedding": ENCODED[text]} for index, text in enumerate(request.body["input"])]
        return UpstreamResponse(200, {}, json.dumps({"data": data}).encode())


def client_of(rules):
    row = OpenAISettings(url="http://upstream", breaker_failures=3)
    metrics = METRICS
    endpoint = Endpoint("http://upstream", "/embeddings", {}, Breaker(BreakerRules(max_failures=3)))
    endpoint.proof = "used"
    dispatcher = Dispatcher(Endpoints([endpoint]), metrics, UpstreamInfo("m", "m"), may_retry=False)
    limits = RequestLimits("m", row, default_max_inputs=2048, metrics=metrics)
    return UpstreamClient(row, OPENAI, connection=DirectTransport(rules), dispatcher=dispatcher, metrics=metrics, limits=limits)


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(RULES, st.lists(st.lists(st.sampled_from(POOL), min_size=1, max_size=24), min_size=1, max_size=3))
def test_whatever_a_server_refuses_the_innocent_are_answered_and_the_guilty_named(rules, requests):
    """Requests one after another to one random server: each is answered rightly, or names an input that is bad."""
    with structlog.testing.capture_logs():
        asyncio.run(answered(rules, requests))


async def answered(rules, requests):
    client = client_of(rules)
    for texts in requests:
        asked = RequestSplitter(client).embed(inputs(*texts), [estimated_tokens(text) for text in texts], "error")
        guilty = [f"'input[{index}]'" for index, text in enumerate(texts) if text in rules.bad]
        if guilty:
            with pytest.raises(AttemptFailed) as failed:
                await asked
            assert isinstance(failed.value.failure.error, Unembeddable | InputTooLong)
            assert any(name in failed.value.failure.error.message for name in guilty)
        else:
            np.testing.assert_allclose((await asked).rows, [ROWS[text] for text in texts], atol=1e-6)
    assert client.dispatcher.endpoints.is_up


def test_positions_are_the_client_s_own():
    """Inputs of which some came from a cache keep their names."""
    some = Inputs(["a", "b"], is_array=True, caller="", deadline=0, positions=(3, 9))
    assert some.only([1]).where(0) == "input[9]"
    assert inputs("a", "b").only([1]).where(0) == "input[1]"


async def test_a_random_mixture_of_callers_of_one_server_with_limits():
    chance = random.Random(5)
    async with over("openai", standin.openai) as (server, remote):
        server.answer = ruled(Rules(max_inputs=16, max_bytes=5_000, status=413, body=b"<html>"))

        async def one(number):
            count = chance.randrange(1, 80)
            is_guilty = number % 3 == 0
            texts = texts_of(count, poisoned={count // 2} if is_guilty else ())
            if is_guilty:
                with pytest.raises(InputTooLong, match=rf"'input\[{count // 2}\]'"):
                    await embedded(remote, *texts)
            else:
                right(await embedded(remote, *texts), texts)

        await asyncio.gather(*(one(number) for number in range(24)))
        assert remote.health().is_available
