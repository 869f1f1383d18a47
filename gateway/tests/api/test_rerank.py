"""POST /v1/rerank, /v2/rerank and /rerank: what a client gets, and with which headers."""

import json
import re

import numpy as np
import pytest

from gateway.config import DoorSettings, ModelRow, ServerSettings
from gateway.errors import Overloaded
from gateway.testing.fakes import FakeBackend, FakeEmbedder, FakeReranker, logit
from gateway.tests.api.conftest import KEY, client_of
from gateway.tests.api.keys import error_of

DOCUMENTS = ["the sea is deep", "paper", "deep water"]
QUERY = "what is deep?"
PATHS = ["/v1/rerank", "/v2/rerank", "/rerank"]
ROWS = (ModelRow(name="r", aliases=("org/r",), backend="fake"), ModelRow(name="m", backend="fake"))


@pytest.fixture
def reranker():
    return FakeReranker()


@pytest.fixture
async def gateway(make, reranker, embedder):
    gateway = make(models=ROWS, backends=[FakeBackend(r=reranker, m=embedder)])
    await gateway.start()
    await gateway.load()
    yield gateway
    await gateway.close()


def sigmoid(number):
    return 1 / (1 + np.exp(-np.float64(number)))


async def ranked(client, path="/v1/rerank", **body):
    return await client.post(path, json={"model": "r", "query": QUERY, "documents": DOCUMENTS, **body})


@pytest.mark.parametrize("path", PATHS)
async def test_the_response_has_every_key_of_coheres_jinas_and_vllms(client, path):
    reply = await ranked(client, path)
    assert reply.status_code == 200
    content = reply.json()
    assert list(content) == ["id", "results", "model", "usage", "meta"]
    assert content["id"] == reply.headers["x-request-id"]
    assert content["model"] == reply.headers["openai-model"] == "r"
    assert content["usage"] == {"prompt_tokens": 16, "total_tokens": 16}  # three words of the query with each document
    version = "2" if path.startswith("/v2") else "1"
    units = {"search_units": 1}
    assert content["meta"] == {"api_version": {"version": version}, "billed_units": units, "tokens": {"input_tokens": 16}}


@pytest.mark.parametrize("fields", [{"top_k": None, "truncation": True}, {"top_k": 2}])
async def test_a_client_of_voyages_finds_the_results_in_its_own_place(client, fields):
    content = (await ranked(client, **fields)).json()
    assert content["object"] == "list"
    assert content["data"] == content["results"]
    assert len(content["data"]) == (fields["top_k"] or 3)


async def test_scores_are_sigmoids_of_the_logits_the_best_first(client):
    results = (await ranked(client)).json()["results"]
    truth = {index: sigmoid(logit(QUERY, text)) for index, text in enumerate(DOCUMENTS)}
    assert [each["index"] for each in results] == sorted(truth, key=truth.get, reverse=True)
    assert [list(each) for each in results] == [["index", "relevance_score"]] * 3
    for each in results:
        assert np.float32(each["relevance_score"]) == np.float32(truth[each["index"]])
        assert 0 < each["relevance_score"] < 1


async def test_raw_scores_are_the_logits_as_the_shortest_text(client):
    reply = await ranked(client, raw_scores=True)
    for each in reply.json()["results"]:
        assert np.float32(each["relevance_score"]) == logit(QUERY, DOCUMENTS[each["index"]])
    shown = re.findall(r'"relevance_score":([^,}]+)', reply.text)
    assert shown == [str(np.float32(text)) for text in shown]
    assert (await ranked(client, use_activation=False)).json()["results"] == reply.json()["results"]


async def test_equal_scores_come_in_the_order_of_the_request(client):
    results = (await ranked(client, documents=["same", "same", "same"])).json()["results"]
    assert [each["index"] for each in results] == [0, 1, 2]


@pytest.mark.parametrize(
    ("asked", "num_results"), [({"top_n": 1}, 1), ({"top_n": 3}, 3), ({"top_n": 99}, 3), ({"top_k": 2}, 2), ({}, 3)]
)
async def test_top_n_are_the_best(client, asked, num_results):
    whole, some = (await ranked(client)).json(), (await ranked(client, **asked)).json()
    assert some["results"] == whole["results"][:num_results]
    assert some["usage"] == whole["usage"]


async def test_documents_come_back_as_they_were_sent(client):
    documents = ["paper", {"text": "deep water", "title": "of the sea", "page": 1e2}]
    results = (await ranked(client, documents=documents, return_documents=True)).json()["results"]
    assert {each["index"]: each["document"] for each in results} == {0: {"text": "paper"}, 1: documents[1]}


async def test_an_object_scores_as_its_text(client):
    objects = (await ranked(client, documents=[{"text": text, "id": 5} for text in DOCUMENTS])).json()
    assert objects["results"] == (await ranked(client)).json()["results"]


async def test_the_fields_to_rank_by_are_joined_in_order(client):
    documents = [{"title": "sea", "text": "deep", "year": 1990, "note": None}, {"text": "paper"}]
    results = (await ranked(client, documents=documents, rank_fields=["year", "title", "note", "text"], raw_scores=True)).json()[
        "results"
    ]
    scores = {each["index"]: np.float32(each["relevance_score"]) for each in results}
    assert scores == {0: logit(QUERY, "1990\nsea\ndeep"), 1: logit(QUERY, "paper")}


async def test_success_carries_every_header_of_the_contract(client):
    headers = (await ranked(client)).headers
    assert set(re.findall(r"(\w+);dur=", headers["server-timing"])) == {"tokenize", "queue", "compute", "encode"}
    assert headers["x-gateway-fingerprint"] == "f" * 24 + ".fake-float32"
    assert headers["x-gateway-cache"] == "hits=0"
    assert (await ranked(client)).headers["x-gateway-cache"] == "hits=3"
    assert (await ranked(client, query="another")).headers["x-gateway-cache"] == "hits=0"


async def test_the_only_reranker_is_the_default(client):
    reply = await client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS})
    assert (reply.status_code, reply.json()["model"]) == (200, "r")


async def test_the_document_says_whether_a_model_is_required(client, make):
    def required(reply):
        return reply.json()["components"]["schemas"]["RerankBody"]["required"]

    assert required(await client.get("/openapi.json")) == ["query", "documents"]
    gateway = make()
    async with client_of(gateway) as other:
        assert required(await other.get("/openapi.json")) == ["query", "documents", "model"]
    await gateway.close()


async def test_without_a_default_a_model_is_required(make):
    gateway = make(
        models=(*ROWS, ModelRow(name="s", backend="fake")),
        backends=[FakeBackend(r=FakeReranker(), s=FakeReranker(), m=FakeEmbedder())],
    )
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        for path in PATHS:
            reply = await client.post(path, json={"query": QUERY, "documents": DOCUMENTS})
            assert error_of(reply) == (400, "invalid_request_error", "model", "missing_required_parameter")
    await gateway.close()


async def test_the_settings_name_a_default(make):
    gateway = make(
        models=(*ROWS, ModelRow(name="s", backend="fake")),
        backends=[FakeBackend(r=FakeReranker(), s=FakeReranker(), m=FakeEmbedder())],
        server=ServerSettings(default_reranker="s"),
    )
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        reply = await client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS})
        assert (reply.status_code, reply.json()["model"]) == (200, "s")
        assert len((await client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS})).json()) == 3
    await gateway.close()


@pytest.mark.parametrize("path", PATHS)
async def test_an_embedder_gives_no_scores_and_a_reranker_no_vectors(client, path):
    assert error_of(await ranked(client, path, model="m")) == (400, "invalid_request_error", "model", "wrong_model_kind")
    reply = await client.post("/v1/embeddings", json={"model": "r", "input": "a"})
    assert error_of(reply) == (400, "invalid_request_error", "model", "wrong_model_kind")


async def test_an_error_names_the_document(client, reranker):
    reranker.poison = DOCUMENTS[1]
    reply = await ranked(client)
    assert error_of(reply) == (500, "server_error", "documents", "unembeddable_input")
    assert "'documents[1]'" in reply.json()["error"]["message"]


async def test_of_a_longer_document_the_first_tokens_are_read(client):
    reply = (await ranked(client, max_tokens_per_doc=2, raw_scores=True)).json()
    scores = {each["index"]: np.float32(each["relevance_score"]) for each in reply["results"]}
    assert scores == {0: logit(QUERY, "the sea"), 1: logit(QUERY, "paper"), 2: logit(QUERY, "deep water")}
    assert reply["usage"]["total_tokens"] == 14
    assert (await ranked(client, max_tokens_per_doc=4096)).json()["results"] == (await ranked(client)).json()["results"]


async def test_a_priority_above_zero_lets_others_go_first(client, reranker):
    for priority, service_class in ((0, "interactive"), (5, "background")):
        assert (await ranked(client, query=f"query {priority}", priority=priority)).status_code == 200
        assert reranker.prepared[-1].service_class == service_class


async def test_a_number_of_windows_is_refused_where_a_document_has_several(client, reranker):
    assert (await ranked(client, max_chunks_per_doc=10)).status_code == 200  # no document is long
    reranker.long = {DOCUMENTS[1]}
    reply = await ranked(client, max_chunks_per_doc=10, query="another")
    assert error_of(reply) == (400, "invalid_request_error", "max_chunks_per_doc", "invalid_value")
    assert "'documents[1]'" in reply.json()["error"]["message"]
    assert (await ranked(client, max_chunks_per_doc=1, query="another")).status_code == 200
    assert reranker.prepared[-1].long_input == "end"
    whole = await ranked(client, query="another")
    assert whole.headers["x-gateway-long-inputs"] == "chunked=1"


@pytest.mark.parametrize(
    "path", ["/v1/reranking", "/reranking", "/v1/v2/rerank", "/v1/v1/rerank", "/v2/v2/rerank", "//v1//rerank/"]
)
async def test_other_spellings_of_the_paths(client, path):
    reply = await ranked(client, path)
    assert reply.status_code == 200
    assert len(reply.json()["results"]) == 3


async def in_teis_words(client, **body):
    return await client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS, **body})


async def test_a_body_with_texts_gets_teis_reply(client):
    reply = await in_teis_words(client)
    assert reply.status_code == 200
    results = (await ranked(client)).json()["results"]
    assert reply.json() == [{"index": each["index"], "score": each["relevance_score"]} for each in results]
    assert reply.headers["openai-model"] == "r"
    for header in ("server-timing", "x-gateway-fingerprint", "x-gateway-cache", "x-request-id"):
        assert header in reply.headers
    assert reply.headers["x-compute-tokens"] == "16"
    assert reply.headers["x-compute-characters"] == "69"  # as TEI counts this very request
    assert not [header for header in (await ranked(client, "/rerank")).headers if header.startswith("x-compute")]


async def test_teis_options(client, reranker):
    reply = await in_teis_words(client, raw_scores=True, return_text=True, truncate=True, truncation_direction="Right")
    assert [list(each) for each in reply.json()] == [["index", "text", "score"]] * 3
    assert {each["text"]: np.float32(each["score"]) for each in reply.json()} == {text: logit(QUERY, text) for text in DOCUMENTS}
    assert reranker.prepared[-1].long_input == "end"
    assert (await in_teis_words(client, truncate=False, query="another")).status_code == 200
    assert reranker.prepared[-1].long_input == "error"


TEI_CASES = {  # as TEI 1.9.3 answered; the words in plain text begin as its own do
    "no texts": ({"texts": []}, 400, "Empty", "`texts` cannot be empty"),
    "empty query": ({"query": ""}, 200, None, ""),
    "empty text": ({"texts": ["", ""]}, 200, None, ""),
    "no query": ({"query": None}, 422, None, "Failed to deserialize the JSON body into the target type: "),
    "a number": ({"texts": [5]}, 422, None, "Failed to deserialize the JSON body into the target type: "),
    "a string": ({"texts": "a"}, 422, None, "Failed to deserialize the JSON body into the target type: "),
    "left": ({"truncation_direction": "Left"}, 422, "Validation", "Input validation error: "),
    "left, uncut": ({"truncation_direction": "Left", "truncate": False}, 200, None, ""),
    "up": ({"truncation_direction": "up"}, 422, None, "Failed to deserialize the JSON body into the target type: "),
    "too many": ({"texts": ["a"] * 8193}, 422, "Validation", "batch size 8193 > maximum allowed batch size 8192"),
    "far too many": ({"texts": ["a"] * 100_000}, 422, "Validation", "batch size more than 8192 > maximum allowed batch size 8192"),
}


@pytest.mark.parametrize("row", TEI_CASES.values(), ids=TEI_CASES)
async def test_teis_cases(client, row):
    body, status, kind, words = row
    reply = await in_teis_words(client, **body)
    assert reply.status_code == status
    if status == 200:
        return
    if kind is None:
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        assert reply.text.startswith(words)
    else:
        assert list(reply.json()) == ["error", "error_type"]
        assert reply.json()["error_type"] == kind
        assert reply.json()["error"].startswith(words)
    assert "x-request-id" in reply.headers


async def test_a_body_of_another_type_is_refused_in_teis_form_alone(client):
    for body, status in (({"query": QUERY, "texts": DOCUMENTS}, 415), ({"query": QUERY, "documents": DOCUMENTS}, 200)):
        reply = await client.post("/rerank", content=json.dumps(body), headers={"content-type": "text/plain"})
        assert reply.status_code == status


async def test_teis_errors_of_a_model(make, client, reranker):
    reranker.poison = DOCUMENTS[1]
    reply = await in_teis_words(client)
    assert (reply.status_code, reply.json()["error_type"]) == (424, "Backend")
    assert "'texts[1]'" in reply.json()["error"]


async def test_a_gateway_whose_only_model_is_an_embedder_answers_as_tei_would(make, embedder):
    gateway = make()
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        reply = await in_teis_words(client)
        assert (reply.status_code, reply.json()["error_type"]) == (424, "Backend")
    await gateway.close()


async def test_the_path_names_a_model_in_teis_way(client):
    reply = await client.post("/tei/org/r/rerank", json={"query": QUERY, "texts": DOCUMENTS})
    assert (reply.status_code, reply.headers["openai-model"]) == (200, "org/r")
    assert (await client.post("/tei/m/rerank", json={"query": QUERY, "texts": DOCUMENTS})).status_code == 424
    assert (await client.post("/tei/none/rerank", json={"query": QUERY, "texts": DOCUMENTS})).status_code == 404


async def test_an_overloaded_gateway_is_counted_as_rejecting_though_tei_has_another_status(client, reranker, gateway):
    reranker.raises = Overloaded()
    reply = await in_teis_words(client)
    assert (reply.status_code, reply.json()["error_type"], reply.headers["retry-after"]) == (429, "Overloaded", "1")
    metrics = (await client.get("/metrics")).text
    assert re.search(r'^gateway_rejections_total\{reason="server_overloaded"\} 1\.0$', metrics, flags=re.MULTILINE)


async def test_both_shapes_in_one_body_are_refused(client):
    assert error_of(await in_teis_words(client, documents=["a"])) == (400, "invalid_request_error", "texts", "invalid_value")
    assert (await ranked(client, "/rerank", texts=None)).status_code == 200
    assert error_of(await client.post("/rerank", json={"query": "a"})) == (
        400, "invalid_request_error", "documents", "missing_required_parameter",
    )  # fmt: skip


async def test_without_teis_door_texts_are_no_documents(make, reranker, embedder):
    gateway = make(models=ROWS, backends=[FakeBackend(r=reranker, m=embedder)], doors=DoorSettings(tei=False))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        assert error_of(await in_teis_words(client)) == (400, "invalid_request_error", "documents", "missing_required_parameter")
        assert (await ranked(client, "/rerank")).status_code == 200
    await gateway.close()
