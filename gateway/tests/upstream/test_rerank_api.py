"""Whether a server's scores are logits: found out by values, never by names, and found out again where they were misread."""

import numpy as np
import pytest

from gateway.api.error_format import openai_error
from gateway.embedding.cache import VectorCache
from gateway.errors import InputTooLong, OperatorError, Unembeddable, UpstreamError
from gateway.testing.rerank_server import COHERE, INFINITY, LLAMA, VLLM, RerankServer, RerankWeights, sigmoid
from gateway.testing.upstream_server import Said, Standin
from gateway.tests.upstream.conftest import built, cached_over, inputs, over
from gateway.upstream import scores

QUERY = "what lives in the deep sea"
NARROW = RerankWeights(scale=0.02, offset=0.5)  # all its logits may be probabilities


async def scored(remote, *documents):
    return (await remote.embed(await remote.prepare(inputs(*documents, query=QUERY)))).rows[:, 0]


@pytest.mark.parametrize("values", [np.geomspace(1e-37, 0.5, 1000), 1 - np.geomspace(1e-16, 0.5, 1000), np.linspace(0, 1, 10_001)])
def test_the_sigmoid_of_a_logit_is_the_probability_that_it_was_made_of(values):
    values = np.sort(values)
    logits = scores.logits_of(values).astype(np.float32)
    assert np.isfinite(logits).all()
    assert (np.diff(logits) >= 0).all()
    with np.errstate(over="raise", invalid="raise"):
        again = 1 / (1 + np.exp(-logits))  # a door's sigmoid, in float32
    np.testing.assert_allclose(again, values, atol=1.2e-7, rtol=0)
    np.testing.assert_allclose(scores.sigmoid(logits.astype(np.float64)), values, atol=1.2e-7, rtol=1e-5)


def test_0_and_1_have_finite_logits_and_come_back_exactly():
    logits = scores.logits_of(np.array([0.0, 1.0, -1e-7, 1 + 1e-7, 0.5])).astype(np.float32)
    assert np.float32(1 / (1 + np.exp(-logits))).tolist() == [
        pytest.approx(0.0, abs=1e-37),
        1.0,
        pytest.approx(0.0, abs=1e-37),
        1.0,
        0.5,
    ]


def test_points_keep_the_order_of_scores_and_have_length_1():
    logits = np.linspace(-90, 40, 500, dtype=np.float32)[:, None]
    found = scores.points(logits)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert (np.diff(found[:, 1]) > 0).all()
    assert scores.spread(found).shape == (500, 8)


async def test_the_same_server_is_read_rightly_whichever_scores_its_model_gives():
    """llama.cpp gives logits of BERT's rerankers, probabilities of Qwen3's."""
    qwen = RerankServer("llama.cpp with Qwen3", LLAMA.reply, lambda _, logit: sigmoid(logit))
    for server in (LLAMA, qwen):
        async with over("openai", server.answering(), task="rerank") as (_, remote):
            found = await scored(remote, "the deep sea", "paper")
            np.testing.assert_allclose(found, RerankWeights().logits(QUERY, ["the deep sea", "paper"]), atol=2e-3)
            assert remote.client.known.own.are_probabilities == (server is qwen)


async def test_logits_that_a_server_gives_on_request_are_had_even_if_all_lie_within_0_and_1():
    for server in (INFINITY, VLLM):
        async with over("openai", server.answering(NARROW), task="rerank") as (_, remote):
            np.testing.assert_array_equal(await scored(remote, "a", "sea"), np.float32(NARROW.logits(QUERY, ["a", "sea"])))


async def test_an_older_vllm_is_asked_by_the_older_name():
    old = RerankServer("old vLLM", VLLM.reply, lambda body, logit: logit if body.get("activation") is False else sigmoid(logit))
    async with over("openai", old.answering(), task="rerank") as (_, remote):
        np.testing.assert_array_equal(await scored(remote, "a"), np.float32(RerankWeights().logits(QUERY, ["a"])))


async def test_logits_taken_for_probabilities_are_found_out_by_the_first_that_is_none_and_nothing_stays_cached():
    async with Standin(LLAMA.answering(NARROW)).serving() as server:
        remote = built("openai", url=server.url, task="rerank")
        cached = cached_over(remote, VectorCache(1_000_000))
        await cached.start()
        try:
            before = remote.describe().fingerprint
            first = await scored(cached, "a", "sea")
            np.testing.assert_allclose(first, scores.logits_of(np.array(NARROW.logits(QUERY, ["a", "sea"]))), atol=1e-5)
            assert first[1] > first[0]  # misread, and yet in order
            server.answer = with_outlier
            with pytest.raises(UpstreamError, match="outside 0 to 1") as refused:
                await scored(cached, "outlier")
            assert refused.value.headers()["x-should-retry"] == "true"
            assert await scored(cached, "outlier") == [9.5]
            np.testing.assert_array_equal(await scored(cached, "a", "sea"), np.float32(NARROW.logits(QUERY, ["a", "sea"])))
            assert remote.describe().fingerprint != before
            assert remote.health().state == "ready"
        finally:
            await cached.close()


def with_outlier(request):
    if request.method == "GET" or "outlier" not in request.body["documents"]:
        return LLAMA.answering(NARROW)(request)
    return Said(body={"results": [{"index": 0, "relevance_score": 9.5}]})


async def test_a_server_that_takes_one_document_at_once_is_found_out_too():
    def answer(request):
        many = request.method == "POST" and len(request.body["documents"]) > 1
        return Said(400, {"message": "one document, please"}) if many else COHERE.answering()(request)

    async with over("openai", answer, task="rerank") as (_, remote):
        found = await scored(remote, "a", "the deep sea", "b")
        np.testing.assert_allclose(found, RerankWeights().logits(QUERY, ["a", "the deep sea", "b"]), atol=2e-3)
        assert remote.health().learned == {"max_inputs": 1}


async def test_a_listwise_reranker_is_sent_each_document_alone():
    weights = RerankWeights(is_listwise=True)
    async with over("openai", LLAMA.answering(weights), task="rerank") as (server, remote):
        found = await scored(remote, "a", "the deep sea", "b")
        assert [len(request.body["documents"]) for request in server.requests] == [1, 1, 1]
    np.testing.assert_array_equal(found, np.float32([weights.logit(QUERY, each) for each in ("a", "the deep sea", "b")]))


async def test_a_server_with_noise_keeps_its_fingerprint_and_one_of_other_weights_has_another():
    found = []
    for weights in (RerankWeights(), RerankWeights(noise=1e-3), RerankWeights(seed="b"), RerankWeights(offset=0.4)):
        async with over("openai", LLAMA.answering(weights), task="rerank") as (_, remote):
            about = remote.describe()
            found.append({about.fingerprint, *about.alike})
    assert found[0] & found[1]
    assert not found[0] & found[2]
    assert not found[0] & found[3]


async def test_a_model_that_is_changed_is_noticed_and_its_scores_are_not_mixed():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock = Clock()
    async with Standin(LLAMA.answering()).serving() as server:
        remote = built("openai", url=server.url, task="rerank", probe_seconds=60, clock=clock)
        cached = cached_over(remote, VectorCache(1_000_000))
        await cached.start()
        try:
            old = await scored(cached, "the deep sea")
            before = remote.describe().fingerprint
            server.answer = LLAMA.answering(RerankWeights(seed="other"))
            clock.now += 61
            new = await scored(cached, "the deep sea")
            assert new == np.float32(RerankWeights(seed="other").logits(QUERY, ["the deep sea"])) != old
            assert remote.describe().fingerprint != before
        finally:
            await cached.close()


async def test_of_two_addresses_one_that_is_asked_in_another_form_is_not_used():
    async with Standin(INFINITY.answering()).serving() as one, Standin(LLAMA.answering()).serving() as two:
        remote = built("openai", urls=[one.url, two.url], task="rerank")
        try:
            await remote.start()
            assert [endpoint.address for endpoint in remote.endpoints.used] == [one.url]
            assert remote.health().trouble == "address_differs"
            np.testing.assert_array_equal(await scored(remote, "a"), np.float32(RerankWeights().logits(QUERY, ["a"])))
        finally:
            await remote.close()


async def test_two_addresses_of_one_reranker_share_its_documents():
    async with Standin(INFINITY.answering()).serving() as one, Standin(INFINITY.answering()).serving() as two:
        remote = built("openai", urls=[one.url, two.url], task="rerank", max_inputs=2)
        try:
            await remote.start()
            assert len(remote.endpoints.used) == 2
            documents = [f"document {index}" for index in range(40)]
            np.testing.assert_array_equal(await scored(remote, *documents), np.float32(RerankWeights().logits(QUERY, documents)))
        finally:
            await remote.close()


async def test_a_server_that_is_unavailable_at_the_start_is_waited_for():
    asked = []

    def answer(request):
        asked.append(request)
        return Said(503) if len(asked) < 4 else COHERE.answering()(request)

    async with over("openai", answer, task="rerank") as (_, remote):
        np.testing.assert_allclose(await scored(remote, "a"), RerankWeights().logits(QUERY, ["a"]), atol=2e-3)


async def test_the_length_that_another_gateway_names_is_told():
    """In the words of a gateway whose reranker is on its own machine."""
    too_long = InputTooLong("query", 511, why="It has 800 tokens, and the model reads 511 of it beside a document.")

    def answer(request):
        if request.method == "GET" or len(request.body["query"]) < 1000:
            return LLAMA.answering()(request)
        return Said(400, openai_error(too_long).body)

    async with over("openai", answer, task="rerank") as (_, remote):
        with pytest.raises(InputTooLong, match="'query': maximum input length is 511 tokens"):
            await remote.embed(await remote.prepare(inputs("a", "b", query="river " * 400)))


async def test_a_code_that_repeats_the_query_is_never_shown():
    def answer(request):
        if request.method == "GET" or request.body["query"] != "unmistakable":
            return LLAMA.answering()(request)
        return Said(400, {"error": {"code": "unmistakable_query", "message": "no"}})

    async with over("openai", answer, task="rerank") as (_, remote):
        with pytest.raises(Unembeddable, match="'query'") as refused:
            await remote.embed(await remote.prepare(inputs("a", "b", query="unmistakable")))
    assert "unmistakable" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        # Recorded of infinity 0.0.78, and what our own rerank endpoint says of an embedder
        (
            Said(400, {"error": {"message": "ModelNotDeployedError: model=`m` does not support `rerank`", "code": 400}}),
            "gives no scores: it refused the request with the status 400",
        ),
        (
            Said(400, {"error": {"message": "The model `m` is no reranker.", "code": "wrong_model_kind"}}),
            r"gives no scores: it refused the request with the status 400 \(wrong_model_kind\)",
        ),
        (Said(404, {"detail": "Not Found"}), "gives no scores: it does not have the model `m`, or nothing at this address"),
        (Said(200, {"data": [{"embedding": [1.0], "index": 0}]}), "gives no scores: it answered wrongly"),
    ],
    ids=["infinity", "a gateway", "no such path", "another reply"],
)
async def test_a_server_that_does_not_rerank_is_told_to_the_operator(said, told):
    with pytest.raises(OperatorError, match=told):
        async with over("openai", lambda request: said if request.method == "POST" else Said(404), task="rerank"):
            pass


async def test_a_reranker_of_narrow_scores_is_one_though_an_untrained_one():
    async with over("openai", LLAMA.answering(RerankWeights(scale=1e-4)), task="rerank") as (_, remote):
        assert remote.describe().kind == "reranker"


async def test_a_listwise_reranker_of_cosines_is_found_out_too():
    """As jina-reranker-v3: its scores lie between -1 and 1, and other documents move them a little."""
    weights = RerankWeights(scale=0.08, is_listwise=True)
    async with over("openai", LLAMA.answering(weights), task="rerank") as (server, remote):
        await scored(remote, "a", "b")
        assert [len(request.body["documents"]) for request in server.requests] == [1, 1]


async def test_without_a_query_nothing_is_scored():
    async with over("openai", LLAMA.answering(), task="rerank") as (server, remote):
        with pytest.raises(OperatorError, match="compares texts with a query"):
            await remote.prepare(inputs("a"))
        assert server.requests == []
