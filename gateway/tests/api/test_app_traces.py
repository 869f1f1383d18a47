"""Spans, as a real collector on a socket receives them."""

import json
import re
from pathlib import Path

import pytest

from gateway.config import ModelRow, Secret, TraceSettings, load
from gateway.errors import ConfigurationError
from gateway.testing import upstream_server as standin
from gateway.testing.fakes import FakeBackend, FakeReranker
from gateway.testing.upstream_server import Standin
from gateway.tests.api.collector import attributes, collecting
from gateway.tests.api.conftest import KEY, client_of
from gateway.tests.api.faulty import HeldEncoder, gateway_of
from gateway.upstream.backend import UPSTREAM_BACKENDS

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_SAMPLED = PARENT[:-1] + "0"
BODY = {"model": "m", "input": ["secret words", "more"], "dimensions": 4}
DOCUMENT = Path(__file__).parents[3] / "deploy" / "traces.md"


@pytest.fixture
def collected(tmp_path):
    """Answers a request by a traced gateway and returns what its collector then has."""

    async def answered(make, *, headers=None, body=BODY, path="/v1/embeddings", **settings):
        (tmp_path / "collector-key").write_text("collector-secret\n")
        with collecting() as (collector, endpoint):
            secrets = {"x-collector-key": Secret(file=str(tmp_path / "collector-key"))}
            gateway = make(TraceSettings(endpoint=endpoint, headers=secrets, **settings))
            await gateway.start()
            await gateway.load()
            async with client_of(gateway, authorization=f"Bearer {KEY}", **(headers or {})) as client:
                reply = await (client.post(path, json=body) if body else client.get(path))
            await gateway.close()
        collector.reply = reply
        return collector

    return answered


def test_it_is_set_like_everything_else():
    environ = {
        "GATEWAY__TRACES__ENDPOINT": "http://collector:4318/v1/traces",
        "GATEWAY__TRACES__HEADERS": '{"api-key": {"env": "COLLECTOR_KEY"}}',
        "GATEWAY__TRACES__SAMPLE_RATIO": "0.1",
    }
    traces = load(environ=environ).traces
    assert (traces.endpoint, traces.sample_ratio) == ("http://collector:4318/v1/traces", 0.1)
    assert traces.headers == {"api-key": Secret(env="COLLECTOR_KEY")}
    with pytest.raises(ConfigurationError, match="must begin with http"):
        load(environ={"GATEWAY__TRACES__ENDPOINT": "collector:4318"})


async def test_a_request_is_a_span_with_the_facts_of_it_and_none_of_its_words(collected, make):
    collector = await collected(lambda traces: make(traces=traces))
    [span] = collector.named("POST /v1/embeddings")
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/v1/embeddings",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "embeddings",
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.embeddings.dimension.count": 4,
        "gateway.request_id": collector.reply.headers["x-request-id"],
        "gateway.key": attributes(span)["gateway.key"],
        "gateway.inputs": 2,
        "gateway.cache_hits": 0,
    }
    told = json.dumps([attributes(each) for each in collector.spans])
    assert "secret words" not in told
    assert KEY not in told
    assert collector.headers["x-collector-key"] == "collector-secret"
    assert collector.resources[0]["service.name"] == "embeddings-gateway"


async def test_scores_have_an_operation_of_their_own(collected, make):
    body = {"query": "secret words", "documents": ["more"]}
    collector = await collected(
        lambda traces: make(traces=traces, backends=[FakeBackend(m=FakeReranker())]), body=body, path="/v1/rerank"
    )
    [span] = collector.named("POST /v1/rerank")
    told = attributes(span)
    assert (told["gen_ai.operation.name"], told["gen_ai.request.model"], told["gateway.inputs"]) == ("rerank", "m", 1)
    assert "gen_ai.embeddings.dimension.count" not in told


async def test_the_stages_are_its_children_in_the_order_of_the_road(collected, tmp_path):
    collector = await collected(
        lambda traces: gateway_of(HeldEncoder(), folder=tmp_path, traces=traces), body={"model": "m", "input": "1 2 3"}
    )
    [parent] = collector.named("POST /v1/embeddings")
    stages = sorted((span for span in collector.spans if span is not parent), key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in stages] == ["tokenize", "queue", "compute", "encode"]
    assert {span.parent_span_id for span in stages} == {parent.span_id}
    times = [time for span in stages for time in (span.start_time_unix_nano, span.end_time_unix_nano)]
    assert [parent.start_time_unix_nano, *times, parent.end_time_unix_nano] == sorted(
        [parent.start_time_unix_nano, *times, parent.end_time_unix_nano]
    )


async def test_the_clients_own_trace_goes_on(collected, make):
    collector = await collected(lambda traces: make(traces=traces), headers={"traceparent": PARENT}, sample_ratio=0.0)
    [span] = collector.named("POST /v1/embeddings")
    assert f"00-{span.trace_id.hex()}-{span.parent_span_id.hex()}-01" == PARENT


@pytest.mark.parametrize(
    ("headers", "ratio"), [({"traceparent": NOT_SAMPLED}, 1.0), ({}, 0.0)], ids=["the client says no", "the ratio says no"]
)
async def test_what_is_not_sampled_is_not_sent(headers, ratio, collected, make):
    collector = await collected(lambda traces: make(traces=traces), headers=headers, sample_ratio=ratio)
    assert collector.reply.status_code == 200
    assert collector.spans == []


async def test_a_refusal_is_told_by_its_code_and_is_no_error_of_ours(collected, make):
    collector = await collected(lambda traces: make(traces=traces), body={"model": "x", "input": "a"})
    [span] = collector.named("POST /v1/embeddings")
    assert attributes(span)["error.type"] == "model_not_found"
    assert attributes(span)["http.response.status_code"] == 404
    assert span.status.code == span.status.STATUS_CODE_UNSET


async def test_our_own_failure_is_an_error(collected, make, embedder):
    embedder.raises = RuntimeError("secret words")
    collector = await collected(lambda traces: make(traces=traces))
    [span] = collector.named("POST /v1/embeddings")
    assert attributes(span)["error.type"] == "internal_error"
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert "secret words" not in str(collector.spans)


async def test_probes_are_not_traced(collected, make):
    collector = await collected(lambda traces: make(traces=traces), body=None, path="/readyz")
    assert collector.spans == []


async def test_the_log_line_names_the_trace(collected, make, capfd):
    await collected(lambda traces: make(traces=traces), headers={"traceparent": PARENT})
    assert PARENT[3:35] in "".join(capfd.readouterr())


async def test_a_collector_that_is_unavailable_costs_nobody_an_answer(make):
    gateway = make(traces=TraceSettings(endpoint="http://127.0.0.1:9/v1/traces", timeout_seconds=0.1))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        assert (await client.post("/v1/embeddings", json=BODY)).status_code == 200
    await gateway.close()


async def test_a_call_to_another_server_goes_on_with_the_trace_there(collected, make):
    async with Standin(standin.openai).serving() as server:
        row = ModelRow(name="m", backend="openai", settings={"url": server.url, "model": "theirs"})
        collector = await collected(lambda traces: make(traces=traces, models=(row,), backends=UPSTREAM_BACKENDS))
    [parent] = collector.named("POST /v1/embeddings")
    [call] = [span for span in collector.named("embeddings theirs") if span.parent_span_id == parent.span_id]
    assert call.kind == call.SPAN_KIND_CLIENT
    assert server.requests[-1].headers["traceparent"].startswith(f"00-{call.trace_id.hex()}-{call.span_id.hex()}-")
    told = attributes(call)
    assert (told["server.address"], told["gen_ai.request.model"]) == ("127.0.0.1", "theirs")
    assert "secret words" not in str(collector.spans)


async def test_the_document_lists_exactly_the_attributes_there_are(collected, make):
    collector = await collected(lambda traces: make(traces=traces))
    refused = await collected(lambda traces: make(traces=traces), body={"model": "x", "input": "a"})
    sent = {name for each in (collector, refused) for span in each.spans for name in attributes(span)}
    sent |= {"server.address", "server.port"}  # of a call: see the test above
    table = DOCUMENT.read_text(encoding="utf-8").partition("## Attributes")[2]
    assert set(re.findall(r"`([a-z_]+[a-z_.]*)`", " ".join(re.findall(r"^\| (`.*?`) \|", table, flags=re.MULTILINE)))) == sent
