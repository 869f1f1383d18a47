"""A front beside a scripted engine process: what it sends for a request, and what becomes of requests when that process ends."""

import asyncio
import base64
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import msgspec
import numpy as np
import pytest

from gateway.access.keys.key import Allowance, Caller
from gateway.access.limits.local_store import RateState
from gateway.calls.channel import MAX_UNSENT_BYTES
from gateway.calls.engine_message import (
    AuthenticateCall,
    CallFailure,
    Commit,
    Done,
    EmbedPrepared,
    EnterLease,
    ExitLease,
    HTTPBody,
    HTTPCall,
    HTTPCredit,
    HTTPResult,
    InfoCall,
    KeysChanged,
    LeaseState,
    PrepareCall,
    PreparedResult,
    RecordUse,
    Released,
    WindowsWanted,
)  # fmt: skip
from gateway.calls.message import CancelCall, EmbedCall, EmbedResult, ReplicaInfo
from gateway.config import Config
from gateway.engine.encoder import NetworkInfo
from gateway.engine.settings import LocalSettings
from gateway.errors import EngineUnavailable, InternalError, Overloaded, RateLimited
from gateway.processes import control
from gateway.testing.fakes import hashed
from gateway.testing.front_process import ABOUT, ScriptedEngine, running_front
from gateway.tests.api.collector import collecting
from gateway.tests.api.faulty import HeldEncoder

ROWS = [{"name": "m", "backend": "fake"}, {"name": "n", "aliases": ["other"], "backend": "fake"}]
KEY, OTHER_KEY = "sk-gw-test-" + "k" * 43, "sk-gw-other-" + "k" * 43
LIMITED = Caller("limited", Allowance(requests_per_minute=60, tokens_per_minute=600))


def configured(**sections):
    fields = {"models": ROWS, "auth": {"mode": "none"}, **sections}
    return msgspec.convert(fields, Config)


class Served:
    """A front that is linked to `engine` and configured by it."""

    def __init__(self, config=None, callers=None, *, ranker=False, info=None):
        self.config = config or configured()
        self.ranker = ranker
        self.info = info
        self.callers = callers

    async def __aenter__(self):
        self.context = running_front(self.config)
        self.running, self.client = await self.context.__aenter__()
        self.engine = await self.linked()
        return self

    async def linked(self):
        engine = ScriptedEngine(self.config, callers=self.callers)
        if self.ranker:
            about = replace(ABOUT, kind="reranker", dimensions=1)
            engine.states = [msgspec.structs.replace(state, description=about) for state in engine.states]
        if self.info is not None:
            engine.tell(self.info)
        await self.running.link(engine)
        assert isinstance(await engine.configure(), Done)
        while not self.running.can_serve:
            await asyncio.sleep(0.001)
        return engine

    async def __aexit__(self, *error):
        await self.context.__aexit__(*error)

    async def post(self, json, path="/v1/embeddings", **headers):
        return await self.client.post(path, json=json, headers=headers)


async def test_texts_are_embedded_by_the_engine_process():
    async with Served() as served:
        reply = await served.post({"model": "m", "input": ["a b", "c"]})
    assert reply.status_code == 200, reply.text
    rows = [each["embedding"] for each in reply.json()["data"]]
    assert np.allclose(rows, [hashed("a b", 8), hashed("c", 8)])
    assert reply.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert "queue" in reply.headers["server-timing"]


async def test_the_row_is_named_by_its_place():
    async with Served() as served:
        assert (await served.post({"model": "other", "input": "a"})).status_code == 200
        assert (await served.engine.hear(PrepareCall)).model == 1


async def test_other_requests_are_relayed():
    async with Served() as served:
        reply = await served.client.get("/models?x=1", headers={"x-request-id": "mine"})
        call = await served.engine.hear(HTTPCall)
    assert (reply.status_code, reply.text, reply.headers["x-request-id"]) == (200, "/v1/models", "mine")
    assert (call.path, call.original_path, call.query_string, call.request_id) == ("/v1/models", "/models", b"x=1", "mine")


async def test_without_an_engine_process_work_is_refused_at_once():
    async with running_front(configured()) as (_, client):
        reply = await client.post("/v1/embeddings", json={"model": "m", "input": "a"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_unavailable")
        assert 1 <= int(reply.headers["retry-after"]) < 60
        alive, ready, other = [await client.get(path) for path in ("/livez", "/readyz", "/v1/models")]
        assert (alive.status_code, alive.json()) == (200, {"status": "degraded", "trouble": {"engine": "restarting"}})
        assert (ready.status_code, ready.json()) == (503, {"status": "loading", "waiting_for": ["engine"]})
        assert (other.status_code, other.json()["error"]["code"]) == (503, "engine_unavailable")


async def test_what_waits_when_the_engine_process_ends_is_refused_and_the_next_one_serves():
    async with Served() as served:
        served.engine.answers[EmbedPrepared] = lambda *_: None
        served.engine.answers[HTTPCall] = lambda *_: None
        waiting = [asyncio.create_task(served.post({"model": "m", "input": str(number)})) for number in range(8)]
        relayed = asyncio.create_task(served.client.get("/v1/models"))
        while sum(isinstance(message, EmbedPrepared | HTTPCall) for message in served.engine.heard) < 9:
            served.engine.has_heard.clear()
            await served.engine.has_heard.wait()
        served.engine.die()
        replies = [await each for each in (*waiting, relayed)]
        assert {(reply.status_code, reply.json()["error"]["code"]) for reply in replies} == {(503, "engine_unavailable")}
        served.engine = await served.linked()
        assert (await served.post({"model": "m", "input": "a"})).status_code == 200


async def test_a_client_that_leaves_cancels_its_call():
    async with Served() as served:
        served.engine.answers[EmbedPrepared] = lambda *_: None
        waiting = asyncio.create_task(served.post({"model": "m", "input": "a"}))
        call = await served.engine.hear(EmbedPrepared)
        waiting.cancel()
        assert (await served.engine.hear(CancelCall)).number == call.number


async def test_a_caller_is_asked_for_once_until_keys_change():
    config = configured(auth={})
    async with Served(config, {KEY: Caller("k")}) as served:
        headers = {"authorization": f"Bearer {KEY}"}
        for _ in range(3):
            assert (await served.post({"model": "m", "input": "a"}, **headers)).status_code == 200
        assert sum(isinstance(message, AuthenticateCall) for message in served.engine.heard) == 1
        use = await served.engine.hear(RecordUse)
        assert (use.caller.public_id, use.model) == ("k", "m")
        told = used(served)
        while told[0] < 3:  # in one message, or in two where the machine is slow
            await asyncio.sleep(0.001)
            told = used(served)
        assert told == (3, 3, 3)
        served.engine.callers.clear()
        served.engine.channel.send(KeysChanged())
        while True:  # until the front has heard it
            refused = await served.post({"model": "m", "input": "a"}, **headers)
            if refused.status_code != 200:
                break
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert refused.headers["www-authenticate"].endswith('error="invalid_token"')


def used(served):
    """Requests, inputs and tokens, as the engine process was told."""
    told = [message for message in served.engine.heard if isinstance(message, RecordUse)]
    return tuple(sum(getattr(use, name) for use in told) for name in ("num_requests", "num_inputs", "num_tokens"))


async def test_what_a_front_has_not_told_is_told_when_it_ends_and_of_a_budget_at_once():
    config = configured(auth={})
    spending = Caller("spending", Allowance(token_budget=1000))
    async with Served(config, {KEY: Caller("k"), OTHER_KEY: spending}) as served:
        assert (await served.post({"model": "m", "input": "a"}, authorization=f"Bearer {KEY}")).status_code == 200
        assert used(served)[0] in {0, 1}
        for number in range(3):
            assert (await served.post({"model": "m", "input": "a"}, authorization=f"Bearer {OTHER_KEY}")).status_code == 200
            told = [message for message in served.engine.heard if isinstance(message, RecordUse)]
            assert [use.caller.public_id for use in told if use.caller == spending] == ["spending"] * (number + 1)
        assert (await served.post({"model": "m", "input": "a"}, authorization=f"Bearer {KEY}")).status_code == 200
        engine = served.engine
    while not engine.channel.is_closed:
        await asyncio.sleep(0.001)
    assert used(served) == (5, 5, 5)


async def test_a_lease_is_entered_charged_by_its_call_and_ended():
    config = configured(auth={})
    async with Served(config, {KEY: LIMITED}) as served:
        served.engine.answers[EnterLease] = lambda call, _: LeaseState(number=call.number, state=RateState(60_000_000, 0))
        row = hashed("a b", 8).tobytes()
        charged = RateState(60_000_000, 120_000_000)
        served.engine.answers[EmbedPrepared] = lambda call, _: (
            EmbedResult(number=call.number, dimensions=8, stages={}, state=charged), row,
        )  # fmt: skip
        reply = await served.post({"model": "m", "input": "a b"}, authorization=f"Bearer {KEY}")
        entered, ended = await served.engine.hear(EnterLease), await served.engine.hear(ExitLease)
        assert reply.headers["x-ratelimit-remaining-requests"] == "9"
        assert reply.headers["x-ratelimit-remaining-tokens"] == "598"
        assert (await served.engine.hear(EmbedPrepared)).lease == entered.number == ended.lease
        assert (ended.error, ended.number) == ("", 0)


async def test_an_error_tells_what_it_cost():
    config = configured(auth={})
    async with Served(config, {KEY: LIMITED}) as served:
        served.engine.answers[EnterLease] = lambda call, _: LeaseState(number=call.number, state=RateState(60_000_000, 0))
        served.engine.answers[ExitLease] = lambda call, _: LeaseState(number=call.number, state=RateState(60_000_000, 60_000_000))
        reply = await served.post({"model": "m", "input": ""}, authorization=f"Bearer {KEY}")
        ended = await served.engine.hear(ExitLease)
        assert (reply.status_code, reply.headers["x-ratelimit-remaining-tokens"], ended.error) == (400, "599", "EmptyInput")


@asynccontextmanager
async def entering(*, debt=0):
    """A front whose caller has been told of by one request, after which it owes so many shares of requests."""
    async with Served(configured(auth={}), {KEY: LIMITED}, info=WORDS) as served:
        told = RateState(debt, 0)
        served.engine.answers[EnterLease] = lambda call, _: LeaseState(number=call.number, state=told)
        served.engine.answers[ExitLease] = lambda call, _: LeaseState(number=call.number, state=told) if call.number else None
        served.engine.answers[EmbedCall] = lambda call, _: (
            EmbedResult(number=call.number, dimensions=8, stages={}, state=told), hashed("1", 8).tobytes(),
        )  # fmt: skip
        assert (await limited(served, "1")).status_code == 200
        await served.engine.hear(ExitLease)
        served.engine.heard.clear()
        yield served


async def limited(served, text):
    return await served.post({"model": "m", "input": text}, authorization=f"Bearer {KEY}")


async def test_a_caller_far_from_its_limits_is_entered_by_the_call_that_embeds():
    async with entering() as served:
        reply = await limited(served, "1 2")
        assert (reply.status_code, reply.headers["x-ratelimit-remaining-requests"]) == (200, "10")
        call, ended = await served.engine.hear(EmbedCall), await served.engine.hear(ExitLease)
        assert (call.entering, call.lease, call.charged_lease, ended.lease) == (LIMITED, 0, call.number, call.number)
        assert not any(isinstance(message, EnterLease) for message in served.engine.heard)


async def test_a_caller_near_its_limits_is_entered_before_its_body_is_read():
    async with entering(debt=6 * 60_000_000) as served:  # six requests of a burst of ten
        assert (await limited(served, "1 2")).status_code == 200
        call, entered = await served.engine.hear(EmbedCall), await served.engine.hear(EnterLease)
        assert (call.entering, call.lease) == (None, entered.number)
        served.engine.answers[EnterLease] = lambda *_: RateLimited("requests", "limit 60", wait_seconds=1.0)
        assert (await limited(served, "")).status_code == 429  # and not 400


async def test_a_caller_whose_state_was_told_long_ago_is_entered_first():
    async with entering() as served:
        served.running.front.current.handler.limiter.known.clock = lambda: time.monotonic() + 2
        assert (await limited(served, "1 2")).status_code == 200
        await served.engine.hear(EnterLease)


async def test_a_request_that_no_call_has_entered_counts_at_its_end():
    async with entering() as served:
        reply = await limited(served, "")
        entered, ended = await served.engine.hear(EnterLease), await served.engine.hear(ExitLease)
        assert (reply.status_code, reply.headers["x-ratelimit-remaining-requests"]) == (400, "10")
        assert (ended.lease, ended.error) == (entered.number, "EmptyInput")


async def test_what_refuses_the_call_that_enters_is_the_answer():
    async with entering() as served:
        served.engine.answers[EmbedCall] = lambda *_: RateLimited("requests", "limit 60", wait_seconds=1.0)
        reply = await limited(served, "1 2")
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert (await served.engine.hear(ExitLease)).lease == (await served.engine.hear(EmbedCall)).number


async def test_a_client_that_leaves_before_its_call_has_entered_counts_too():
    async with entering() as served:
        _, writer = await asyncio.open_connection("127.0.0.1", int(served.running.origin.rpartition(":")[2]))
        writer.write(
            f"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {KEY}\r\ncontent-length: 9\r\n\r\n{{".encode()
        )
        while not served.running.front.admission.num_requests:
            await asyncio.sleep(0.001)
        writer.transport.abort()
        entered, ended = await served.engine.hear(EnterLease), await served.engine.hear(ExitLease)
        assert (ended.lease, ended.error) == (entered.number, "ClientGone")


async def test_a_configuration_that_a_front_refuses_changes_nothing():
    async with Served() as served:
        twice = configured(models=[{"name": "m", "backend": "fake"}, {"name": "m", "backend": "fake"}])
        answer = await served.engine.configure(twice, commits=False)
        assert isinstance(answer, CallFailure)
        assert "used twice" in answer.attributes["message"]
        served.engine.config = served.config
        assert (await served.post({"model": "m", "input": "a"})).status_code == 200


async def test_a_request_stays_with_its_generation():
    async with Served() as served:
        served.engine.answers[EmbedPrepared] = lambda *_: None
        waiting = asyncio.create_task(served.post({"model": "m", "input": "a"}))
        call = await served.engine.hear(EmbedPrepared)
        del served.engine.answers[EmbedPrepared]
        renamed = configured(models=[{"name": "new", "backend": "fake"}])
        served.engine.states = served.engine.states[:1]
        assert isinstance(await served.engine.configure(renamed), Done)
        while served.running.front.current.config != renamed:
            await asyncio.sleep(0)
        assert (await served.post({"model": "new", "input": "a"})).status_code == 200
        assert (await served.post({"model": "m", "input": "a"})).status_code == 404
        assert all(message.generation != 1 for message in served.engine.heard if isinstance(message, Released))
        served.engine.channel.send(EmbedResult(number=call.number, dimensions=8, stages={}), hashed("a", 8).tobytes())
        assert (await waiting).status_code == 200
        while Released(generation=1) not in served.engine.heard:
            served.engine.has_heard.clear()
            await served.engine.has_heard.wait()


@pytest.mark.parametrize("size", [10, 300_000, 3_000_000])
async def test_bodies_are_relayed_both_ways(size):
    content = bytes(range(256)) * (size // 256 + 1)
    async with Served() as served:
        engine, received = served.engine, bytearray()

        def on_call(call, _):
            return HTTPCredit(number=call.number, num_bytes=0)

        def on_body(part, payload):
            received.extend(payload)
            engine.channel.send(HTTPCredit(number=part.number, num_bytes=len(payload)))
            if part.has_more:
                return None
            unsent.extend(received)
            return HTTPResult(number=part.number, status=201, headers=[], has_more=True), b""

        def send(number):
            part = bytes(unsent[: min(credit[0], 60_000)])
            if not part or credit[0] <= 0:
                return
            del unsent[: len(part)]
            credit[0] -= len(part)
            engine.channel.send(HTTPBody(number=number, has_more=bool(unsent)), part)
            send(number)

        unsent, credit = bytearray(), [256 * 1024]
        engine.answers[HTTPCall] = on_call

        def on_part(part, payload):
            answer = on_body(part, payload)
            if answer is not None:
                engine.channel.send(*answer)
                send(part.number)

        def on_credit(given, _):
            credit[0] += given.num_bytes
            send(given.number)

        engine.answers[HTTPBody], engine.answers[HTTPCredit] = on_part, on_credit
        reply = await served.client.post("/admin/files", content=content)
    assert reply.status_code == 201
    assert bytes(received) == content
    assert reply.content == content


async def test_a_body_that_nobody_asks_for_is_not_read():
    async with Served() as served:
        reply = await served.client.post("/admin/keys", content=b"x" * 100)
        assert reply.status_code == 200
        assert (await served.engine.hear(HTTPCall)).has_more


async def test_base64_is_the_same_rows():
    async with Served() as served:
        reply = await served.post({"model": "m", "input": "a", "encoding_format": "base64"})
    assert np.allclose(np.frombuffer(base64.b64decode(reply.json()["data"][0]["embedding"]), dtype="<f4"), hashed("a", 8))


async def test_an_engine_process_that_is_silent_is_as_one_that_is_gone():
    async with Served() as served:
        served.engine.answers[AuthenticateCall] = lambda *_: None
        with pytest.raises(EngineUnavailable):
            await served.running.front.client.call(AuthenticateCall, key="k", within_seconds=0.01)
        await served.engine.hear(CancelCall)


async def test_a_client_that_leaves_its_queue_ends_its_lease():
    async with Served(configured(auth={}), {KEY: LIMITED}) as served:
        served.engine.answers[EnterLease] = lambda *_: None
        waiting = asyncio.create_task(served.post({"model": "m", "input": "a"}, authorization=f"Bearer {KEY}"))
        call = await served.engine.hear(EnterLease)
        waiting.cancel()
        ended = await served.engine.hear(ExitLease)
        assert (ended.lease, ended.error, ended.is_cancelled) == (call.number, "ClientGone", False)
        assert (await served.engine.hear(CancelCall)).number == call.number


async def test_what_an_engine_process_does_not_read_is_bounded():
    async with Served() as served:
        served.engine.channel.transport.pause_reading()
        served.running.front.client.send(HTTPBody(number=0), bytes(MAX_UNSENT_BYTES + (1 << 20)))
        await asyncio.sleep(0)  # it goes out at the end of this turn of the loop
        refused, alive = await served.post({"model": "m", "input": "a"}), await served.client.get("/livez")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")
        assert alive.json()["trouble"] == {"engine": "restarting"}
        served.engine.channel.transport.resume_reading()
        await served.engine.hear(HTTPBody)
        assert (await served.post({"model": "m", "input": "a"})).status_code == 200


async def test_a_lease_whose_answer_comes_too_late_is_ended():
    """Else an engine process that hung for a while has entered it, and its slot is taken for ever."""
    async with Served() as served:
        served.engine.answers[EnterLease] = lambda *_: None
        lease = served.running.front.current.handler.limiter.lease(LIMITED)
        lease.max_seconds = 0.01
        with pytest.raises(EngineUnavailable):
            await lease.__aenter__()
        ended = await served.engine.hear(ExitLease)
        assert (ended.lease, ended.error) == ((await served.engine.hear(EnterLease)).number, "EngineUnavailable")


async def test_a_defect_of_the_engine_process_is_a_500_with_the_fronts_own_request_id():
    async with Served() as served:
        served.engine.answers[EmbedPrepared] = lambda *_: InternalError("of another")
        reply = await served.post({"model": "m", "input": "a"})
        assert reply.status_code == 500
        assert reply.headers["x-request-id"] in reply.json()["error"]["message"]


async def test_what_is_prepared_and_never_embedded_is_given_up():
    async with Served(ranker=True) as served:
        served.engine.answers[PrepareCall] = lambda call, _: PreparedResult(
            number=call.number, token_counts=[900], is_long=[True], rule="chunk", stages={}
        )
        asked = {"model": "m", "query": "q", "documents": ["long"], "max_chunks_per_doc": 2}
        assert (await served.post(asked, "/v1/rerank")).status_code == 400
        assert (await served.engine.hear(CancelCall)).number == (await served.engine.hear(PrepareCall)).number


WORDS = ReplicaInfo(
    description=ABOUT,
    settings=LocalSettings(source="none"),
    network=NetworkInfo(dimensions=8, max_tokens=16, is_normalized=True),
    tokenizer_json=HeldEncoder().info.tokenizer_json,
)


async def test_texts_are_tokenised_here_and_inputs_that_the_cache_has_only_once():
    async with Served(info=WORDS) as served:
        calls = []

        def embed(call, payload):
            calls.append((call, payload))
            if payload:
                answer, rows = served.engine.answer(call, payload)
                return msgspec.structs.replace(answer, num_hits=0), rows
            if len(calls) == 2:
                return WindowsWanted(number=call.number)
            return EmbedResult(number=call.number, dimensions=8, stages={}, num_hits=1, num_cached_tokens=2), hashed(
                "a", 8
            ).tobytes()

        served.engine.answers[EmbedCall] = embed
        replies = [await served.post({"model": "m", "input": text}) for text in ("1 2", "1 2", "1 2", "1 2 3")]
        assert [reply.status_code for reply in replies] == [200] * 4
        assert [reply.json()["usage"]["total_tokens"] for reply in replies] == [2, 2, 2, 3]
        assert [bool(payload) for _, payload in calls] == [True, False, True, False, True]
        assert len({tuple(call.digests) for call, _ in calls}) == 2
        assert all(call.token_counts == [2] for call, _ in calls[:4])
        assert [reply.json()["data"] for reply in replies[:2]] == [replies[0].json()["data"]] * 2
        assert not any(isinstance(message, PrepareCall) for message in served.engine.heard)


async def test_repeated_inputs_are_sent_once():
    async with Served(info=WORDS) as served:
        reply = await served.post({"model": "m", "input": ["5", "1 2", "5"]})
        call = await served.engine.hear(EmbedCall)
        assert (call.token_counts, call.places, len(call.digests)) == ([1, 2], [0, 1, 0], 2)
        rows = [each["embedding"] for each in reply.json()["data"]]
        assert rows[0] == rows[2] != rows[1]
        assert reply.json()["usage"]["total_tokens"] == 4


async def test_a_tokenizer_is_fetched_before_the_first_commit():
    async with running_front(configured()) as (running, client):
        engine = ScriptedEngine(configured())
        engine.tell(WORDS)
        await running.link(engine)
        await engine.configure(commits=False)
        await engine.hear(InfoCall)
        engine.channel.send(Commit(generation=1))
        while not running.can_serve:
            await asyncio.sleep(0.001)
        assert (await client.post("/v1/embeddings", json={"model": "m", "input": "1"})).status_code == 200
        assert isinstance(await engine.hear(EmbedCall), EmbedCall)


async def test_a_client_that_leaves_ends_its_relayed_request():
    async with Served() as served:
        served.engine.answers[HTTPCall] = lambda *_: None
        waiting = asyncio.create_task(served.client.get("/v1/models"))
        call = await served.engine.hear(HTTPCall)
        waiting.cancel()
        assert (await served.engine.hear(CancelCall)).number == call.number
        assert not served.running.front.client.exchanges


async def test_a_reply_that_the_engine_process_cannot_finish_is_cut():
    async with Served() as served:
        served.engine.answers[HTTPCall] = lambda call, _: (
            HTTPResult(number=call.number, status=200, headers=[(b"content-length", b"10")], has_more=True), b"12345",
        )  # fmt: skip
        asked = asyncio.create_task(served.client.get("/v1/files/x/content"))
        await served.engine.hear(HTTPCredit)
        served.engine.die()
        with pytest.raises(httpx.RemoteProtocolError):
            await asked


async def test_an_error_of_the_engine_process_is_the_answer():
    async with Served() as served:
        served.engine.answers[HTTPCall] = lambda *_: Overloaded("It is shutting down.")
        reply = await served.client.get("/v1/models")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_overloaded")


async def test_a_front_that_leaves_says_so_itself():
    async with Served(configured(server={"drain_delay_seconds": 0.5})) as served:
        served.running.supervisor.send(control.encode(control.Stop()))
        while True:
            reply = await served.client.get("/readyz")
            if reply.status_code == 503:
                break
        assert reply.json() == {"status": "draining"}
        assert reply.headers["connection"] == "close"
        assert (await served.post({"model": "m", "input": "a"})).status_code == 200


async def test_a_traced_request_is_one_trace_with_the_engine_processes_stages():
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with collecting() as (collector, endpoint):
        async with Served(configured(traces={"endpoint": endpoint}), info=WORDS) as served:
            served.engine.answers[EmbedCall] = lambda call, _: (
                EmbedResult(number=call.number, dimensions=8, stages={"queue": 0.01, "compute": 0.02}), hashed("1", 8).tobytes(),
            )  # fmt: skip
            await served.post({"model": "m", "input": "1"}, traceparent=f"00-{trace}-00f067aa0ba902b7-01")
            assert (await served.engine.hear(EmbedCall)).trace["traceparent"].split("-")[1] == trace
    assert {span.name for span in collector.spans} >= {"POST /v1/embeddings", "tokenize", "queue", "compute", "encode"}
    assert {span.trace_id.hex() for span in collector.spans} == {trace}
    [queue], [compute] = collector.named("queue"), collector.named("compute")
    assert queue.end_time_unix_nano <= compute.start_time_unix_nano + 1000
