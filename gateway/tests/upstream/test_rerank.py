"""Rerankers on other servers: each kind as its row says it, from its own words to logits in the order of the documents."""

import numpy as np
import pytest

from gateway.errors import InputTooLong, InvalidValue, OperatorError, RequestTooLong, UpstreamError
from gateway.testing import rerank_server as servers
from gateway.testing.rerank_server import GATEWAY, INFINITY, LLAMA, NIM, SERVERS, TEI, VLLM, RerankWeights, pair_tokens
from gateway.testing.upstream_server import TEI_INFO, Said, tei_error
from gateway.tests.upstream.conftest import inputs, over, value_of
from gateway.upstream.estimate import estimated_tokens

QUERY = "what lives in the deep sea"
DOCUMENTS = ["paper and stone", "whales live in the deep sea", "the sea", "", "what lives in the deep sea is unknown"]
MODEL = RerankWeights()
EXPECTED = np.array(MODEL.logits(QUERY, DOCUMENTS), dtype=np.float32)[:, None]


@pytest.fixture(params=SERVERS.values(), ids=SERVERS)
def server(request):
    return request.param


@pytest.fixture(params=[TEI, INFINITY, servers.COHERE, servers.VOYAGE, NIM], ids=lambda each: each.name)
def one_of_each(request):
    """Servers that differ in how they refuse and cut what is too long."""
    return request.param


def row(server, **settings):
    """The settings of a row for it."""
    return ("tei" if server is TEI else "openai"), {"task": "rerank", **settings}


def reranker(server, weights=None, *, answer=None, **settings):
    backend, fields = row(server, **settings)
    return over(backend, answer or server.answering(weights), **fields)


async def scored(remote, query, *documents, **fields):
    return await remote.embed(await remote.prepare(inputs(*documents, query=query, field="documents", **fields)))


async def test_its_scores_are_logits_in_the_order_of_the_documents(server):
    async with reranker(server) as (standin, remote):
        found = await scored(remote, QUERY, *DOCUMENTS)
        [request] = standin.requests
        about = remote.describe()
    assert request.path == server.path
    assert (found.rows.dtype, found.rows.shape) == (np.float32, (5, 1))
    np.testing.assert_allclose(found.rows, EXPECTED, atol=2e-3)  # a float32 probability near 1 has no more
    assert (about.kind, about.dimensions) == ("reranker", 1)
    assert about.max_tokens == (512 if server is TEI else 8192)


@pytest.mark.parametrize("server", [TEI, INFINITY, VLLM, GATEWAY, LLAMA], ids=lambda each: each.name)
async def test_where_a_server_gives_logits_they_are_had_exactly(server):
    async with reranker(server) as (_, remote):
        found = await scored(remote, QUERY, *DOCUMENTS)
    np.testing.assert_array_equal(found.rows, EXPECTED)


SENT = {
    "TEI": {"query": QUERY, "texts": ["a", "b"], "raw_scores": True, "truncate": False},
    "vLLM": {"top_n": 2, "return_documents": False, "use_activation": False},
    "Cohere": {"top_n": 2},
    "Jina": {"top_n": 2, "return_documents": False},
    "infinity": {"top_n": 2, "return_documents": False, "raw_scores": True},
    "llama.cpp": {"top_n": 2, "return_documents": False},
    "Voyage": {"top_k": 2},
    "another gateway": {"top_n": 2, "return_documents": False, "raw_scores": True},
    "DashScope": {"top_n": 2},
    "Mixedbread": {"model": "m", "query": QUERY, "input": ["a", "b"], "top_k": 2, "return_input": False},
    "NVIDIA NIM": {"model": "m", "query": {"text": QUERY}, "passages": [{"text": "a"}, {"text": "b"}], "truncate": "NONE"},
}
SENT["NVIDIA, hosted"] = SENT["NVIDIA NIM"]


async def test_it_is_asked_for_all_scores_and_for_logits_in_its_own_words(server):
    async with reranker(server) as (standin, remote):
        await scored(remote, QUERY, "a", "b")
        shared = {} if server.documents != "documents" else {"model": "m", "query": QUERY, "documents": ["a", "b"]}
        assert standin.requests[0].body == shared | SENT[server.name]


async def test_usage_is_what_it_counted_or_the_query_with_each_document(server):
    async with reranker(server) as (_, remote):
        prepared = await remote.prepare(inputs(*DOCUMENTS, query=QUERY))
        found = await remote.embed(prepared)
        is_estimated = bool(value_of(remote, "gateway_estimated_tokens_total", model="m"))
    assert prepared.token_counts == [estimated_tokens(QUERY) + estimated_tokens(each) for each in DOCUMENTS]
    assert is_estimated == (server.name in {"Cohere", "infinity"})  # one counts none, the other characters
    assert sum(found.token_counts) == (prepared.num_tokens if is_estimated else pair_tokens(QUERY, DOCUMENTS))


@pytest.mark.parametrize(
    ("reply", "counted"),
    [
        ({"usage": {"prompt_tokens": 21}}, 21),
        ({"usage": {"total_tokens": 22, "prompt_tokens": 21}}, 22),
        ({"meta": {"tokens": {"input_tokens": 23}}}, 23),
        ({"meta": {"billed_units": {"search_units": 1}}}, None),
        ({"usage": "many", "meta": ["none"]}, None),
        ({"usage": {"total_tokens": 10**9}}, None),
    ],
)
async def test_tokens_are_found_wherever_a_reply_tells_them(reply, counted):
    def answer(request):
        if request.method == "GET":
            return Said(404)
        said = LLAMA.scored(request.body, MODEL)
        return Said(body={"results": said.body["results"], **reply})

    async with reranker(LLAMA, answer=answer) as (_, remote):
        prepared = await remote.prepare(inputs(*DOCUMENTS, query=QUERY))
        found = await remote.embed(prepared)
    assert sum(found.token_counts) == (counted or prepared.num_tokens)


async def test_more_documents_than_it_takes_at_once_are_split_and_joined(one_of_each):
    server = one_of_each
    documents = [f"document {index} of the deep sea" for index in range(70)]
    async with reranker(server, max_inputs=32) as (standin, remote):
        found = await scored(remote, QUERY, *documents)
        sent = [request.body[server.documents] for request in standin.requests]
        assert all(request.body["query"] in [QUERY, {"text": QUERY}] for request in standin.requests)
    assert sorted(map(len, sent)) == [6, 32, 32]
    np.testing.assert_allclose(found.rows[:, 0], MODEL.logits(QUERY, documents), atol=2e-3)


@pytest.mark.parametrize("server", [TEI, LLAMA, NIM], ids=lambda each: each.name)
async def test_no_body_is_larger_than_the_row_says(server):
    documents = [f"document {index} of the deep sea" for index in range(70)]
    async with reranker(server, max_body_bytes=1000) as (standin, remote):
        found = await scored(remote, QUERY, *documents)
        sent = [len(request.content) for request in standin.requests]
    assert 900 < max(sent) <= 1000
    np.testing.assert_array_equal(found.rows[:, 0], np.float32(MODEL.logits(QUERY, documents)))


@pytest.mark.parametrize("server", [TEI, LLAMA], ids=lambda each: each.name)
async def test_a_limit_that_no_one_told_is_learned(server):
    def answer(request):
        too_many = request.method == "POST" and len(request.body[server.documents]) > 10
        return Said(413, b"<html>") if too_many else server.answering()(request)

    documents = [f"document {index}" for index in range(64)]
    async with reranker(server, answer=answer) as (standin, remote):
        found = await scored(remote, QUERY, *documents)
        assert remote.health().learned == {"max_inputs": 10}
        standin.requests.clear()
        await scored(remote, QUERY, *documents)
        assert len(standin.requests) == 7
    np.testing.assert_array_equal(found.rows[:, 0], np.float32(MODEL.logits(QUERY, documents)))


def served(results):
    """A server that gives these `results` to every request but probes."""

    def answer(request):
        if request.method == "GET" or request.body["query"] != QUERY:
            return LLAMA.answering()(request)
        made = results(request.body["documents"]) if callable(results) else results
        return Said(body={"results": made})

    return answer


def result(index, score=1.0):
    return {"index": index, "relevance_score": score}


@pytest.mark.parametrize(
    ("results", "told"),
    [
        ([result(0), result(0)], "its scores are numbered wrongly"),
        ([result(0), result(2)], "its scores are numbered wrongly"),
        ([result(0), result(-1)], "its scores are numbered wrongly"),
        ([result(1)], "it gave 1 scores for 2 texts"),
        ([result(0), result(1), result(2)], "it gave 3 scores for 2 texts"),
        ([{"relevance_score": 2.0}, {"relevance_score": 1.0}], "its scores are not numbered"),
        ([{"index": 0}, {"index": 1}], "its reply is not what this protocol says"),
        ([result(0, "high"), result(1)], "its reply is not what this protocol says"),
        (None, "its reply is not what this protocol says"),
    ],
)
async def test_a_reply_that_is_not_one_score_for_each_document_is_an_error(results, told):
    def always(request):
        if request.method == "GET" or is_ready == []:
            return LLAMA.answering()(request)
        return Said(body={"results": results})

    is_ready = []
    async with reranker(LLAMA, answer=always) as (_, remote):
        is_ready.append(True)
        with pytest.raises(UpstreamError, match=told):
            await scored(remote, QUERY, "a", "b")


async def test_an_index_of_0_may_be_left_out_as_protobuf_does():
    answer = served([{"index": 1, "relevance_score": 3.0}, {"relevance_score": -2.0}])
    async with reranker(LLAMA, answer=answer) as (_, remote):
        assert (await scored(remote, QUERY, "a", "b")).rows.tolist() == [[-2.0], [3.0]]


@pytest.mark.parametrize("score", ["NaN", "Infinity", "null", "1e300"])
async def test_a_score_that_is_no_number_is_the_document_s_error(score):
    from gateway.errors import Unembeddable

    def answer(request):
        if request.method == "GET" or "bad" not in request.body["documents"]:
            return LLAMA.answering()(request)
        place = request.body["documents"].index("bad")
        results = [
            f'{{"index": {i}, "relevance_score": {score if i == place else 1.0}}}' for i in range(len(request.body["documents"]))
        ]
        return Said(200, f'{{"results": [{", ".join(results)}]}}'.encode())

    async with reranker(LLAMA, answer=answer) as (_, remote):
        with pytest.raises(Unembeddable, match=r"documents\[1\]"):
            await scored(remote, QUERY, "a", "bad", "c")


async def test_a_logit_of_zero_is_a_score():
    async with reranker(LLAMA, answer=served(lambda texts: [result(i, 0.0) for i in range(len(texts))])) as (_, remote):
        assert (await scored(remote, QUERY, "a", "b")).rows.tolist() == [[0.0], [0.0]]


async def test_a_document_that_is_too_long_is_the_client_s_to_shorten(one_of_each):
    server = one_of_each
    long = "river stone paper " * 400
    settings = {"extra_body": {"truncation": False}} if server.name == "Voyage" else {}
    async with reranker(server, **settings) as (_, remote):
        with pytest.raises(InputTooLong, match=r"'documents\[1\]': maximum input length is \d+ tokens") as refused:
            await scored(remote, QUERY, "a short one", long, "another")
        assert refused.value.param == "documents"
        with pytest.raises(InputTooLong, match=r"documents\[0\]"):
            await scored(remote, QUERY, long)
        np.testing.assert_allclose((await scored(remote, QUERY, "a", "b")).rows[:, 0], MODEL.logits(QUERY, ["a", "b"]), atol=2e-3)
        assert remote.endpoints.endpoints[0].breaker.num_in_a_row == 0
        assert remote.health().learned == {}


async def test_a_query_that_is_too_long_is_named(one_of_each):
    server = one_of_each
    long = "river stone paper " * 400
    settings = {"extra_body": {"truncation": False}} if server.name == "Voyage" else {}
    async with reranker(server, **settings) as (_, remote):
        for documents in (["a", "b"], ["a"]):
            with pytest.raises(InputTooLong, match=r"'query': maximum input length is \d+ tokens") as refused:
                await scored(remote, long, *documents)
            assert refused.value.param == "query"


@pytest.mark.parametrize("server", [INFINITY, servers.COHERE, servers.JINA], ids=lambda each: each.name)
async def test_documents_just_below_and_above_the_length_that_a_server_cuts_at_are_told_apart(server):
    async with reranker(server) as (_, remote):
        with pytest.raises(InputTooLong):
            await scored(remote, QUERY, "river " * 3000)  # the cut is known from here on
        fits, too_long = "stone " * (512 - 6 - 4), "stone " * (512 - 6 + 1)
        found = await scored(remote, QUERY, fits.strip())
        np.testing.assert_allclose(found.rows[:, 0], MODEL.logits(QUERY, [fits]), atol=2e-3)
        with pytest.raises(InputTooLong, match=r"documents\[1\]"):
            await scored(remote, QUERY, fits.strip(), too_long.strip())
        with pytest.raises(InputTooLong, match="'query'"):
            await scored(remote, "stone " * 400, "paper " * 200)


async def test_the_beginning_of_a_long_document_may_be_asked_for():
    long = "river stone paper " * 400
    async with reranker(TEI) as (standin, remote):
        await scored(remote, QUERY, long, long_input="end")
        assert standin.requests[-1].body["truncate"] is True
    async with reranker(INFINITY) as (_, remote):
        found = await scored(remote, QUERY, long, long_input="end")
    np.testing.assert_array_equal(found.rows[:, 0], np.float32(RerankWeights(limit=512).logits(QUERY, [long])))


async def test_a_length_of_documents_that_it_may_cut_elsewhere_is_refused_by_name():
    async with reranker(LLAMA) as (_, remote):
        await scored(remote, QUERY, "paper", max_document_tokens=4096)
        with pytest.raises(InvalidValue, match=r"'max_tokens_per_doc': 'documents\[1\]' may have more than 20 tokens") as caught:
            await scored(remote, QUERY, "paper", "paper and stone " * 20, max_document_tokens=20)
        assert caught.value.param == "max_tokens_per_doc"


async def test_limits_count_the_query_with_each_document():
    from gateway.config import LimitSettings

    limits = LimitSettings(max_input_tokens=100, max_request_tokens=300)
    async with reranker(LLAMA, limits=limits) as (_, remote):
        with pytest.raises(InputTooLong, match="'query': maximum input length is 100 tokens"):
            await scored(remote, "a" * 500, "b")
        with pytest.raises(InputTooLong, match=r"'documents\[1\]': maximum input length is 100 tokens"):
            await scored(remote, "a" * 200, "b", "c" * 240)
        with pytest.raises(RequestTooLong, match="Requested 440 tokens"):
            await scored(remote, "a" * 200, *["b"] * 8)


@pytest.mark.parametrize("backend", ["tei", "openai"])
async def test_the_wrong_kind_of_row_is_refused_in_one_true_line(backend):
    def embedder(request):
        if request.path == "/info":
            return Said(body=TEI_INFO)
        if backend == "tei":
            return tei_error(424, "Backend error: model is not a re-ranker model", "Backend")
        message = "This server does not support reranking. Start it with `--reranking`"
        return Said(501, {"error": {"code": 501, "message": message, "type": "not_supported_error"}})

    told = {
        "tei": "by its /info the model there is no reranker",
        "openai": r"gives no scores: it failed with the status 501 \(not_supported_error\)\.",
    }
    with pytest.raises(OperatorError, match=told[backend]):
        async with over(backend, embedder, task="rerank"):
            pass
    with pytest.raises(OperatorError, match="by its /info the model there is no embedder"):
        async with over("tei", TEI.answering()):
            pass


async def test_a_wrong_key_is_told_and_no_other_form_is_tried(one_of_each):
    server = one_of_each
    from gateway.testing.upstream_server import Standin
    from gateway.tests.upstream.conftest import started

    backend, settings = row(server)
    async with Standin(server.answering(key="right", wrong_key=Said(401, {"detail": "Unauthorized"}))).serving() as standin:
        with pytest.raises(OperatorError, match="refused our key"):
            async with started(backend, standin, **settings):
                pass
        assert sum(request.method == "POST" for request in standin.requests) <= 1


async def test_a_connection_check_says_that_it_is_a_reranker(one_of_each):
    server = one_of_each
    async with reranker(server) as (_, remote):
        assert await remote.reach(remote.endpoints.endpoints[0]) == "a reranker"


async def test_a_server_that_scores_every_document_the_same_is_no_reranker():
    def answer(request):
        if request.method == "GET":
            return Said(404)
        return Said(body={"results": [result(i, 3.5) for i in range(len(request.body["documents"]))]})

    with pytest.raises(OperatorError, match="gives no scores: it gives every document the same score"):
        async with reranker(LLAMA, answer=answer):
            pass
