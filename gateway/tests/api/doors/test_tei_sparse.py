"""POST /embed_sparse, as TEI answers it: weights of terms, from a sparse encoder alone."""

import numpy as np
import pytest

from gateway.config import AuthSettings, DoorSettings, ModelRow
from gateway.embedding import cached
from gateway.testing.fakes import FakeBackend, FakeEmbedder, hashed_rows
from gateway.tests.api.conftest import client_of

TEXTS = ["one three seventeen", "", "a bb ccc"]


@pytest.fixture
def sparse():
    embedder = FakeEmbedder(dimensions=30)
    embedder.about |= {"kind": "sparse_encoder", "prompts": ("query",)}
    return embedder


@pytest.fixture
async def opened(make, embedder, sparse):
    """A client of a gateway with an embedder `m` and a sparse encoder `s`."""
    rows = (ModelRow(name="m", backend="fake"), ModelRow(name="s", backend="fake"))
    gateway = make(models=rows, auth=AuthSettings(mode="none"), backends=[FakeBackend(m=embedder, s=sparse)])
    await gateway.start()
    await gateway.load()
    async with client_of(gateway) as client:
        yield client
    await gateway.close()


def expected(text, sparse):
    return [{"index": int(term), "value": pytest.approx(float(value))} for term, value in hashed_rows(text, sparse.describe())]


async def test_each_text_has_its_weights_by_term(opened, sparse):
    reply = await opened.post("/embed_sparse", json={"inputs": ["one three seventeen", "a bb ccc"]})
    assert reply.status_code == 200
    assert reply.json() == [expected(text, sparse) for text in ("one three seventeen", "a bb ccc")]
    assert sparse.prepared[-1].normalize is False


async def test_a_model_is_named_in_the_path(opened, sparse):
    assert (await opened.post("/tei/s/embed_sparse", json={"inputs": "a bb"})).json() == [expected("a bb", sparse)]


async def test_the_reply_has_teis_headers(opened):
    headers = (await opened.post("/embed_sparse", json={"inputs": ["one three", "a"]})).headers
    assert (headers["x-compute-characters"], headers["x-compute-tokens"]) == ("10", "3")


async def test_there_are_no_dimensions_to_cut(opened):
    reply = await opened.post("/embed_sparse", json={"inputs": "a", "dimensions": 2})
    assert (reply.status_code, "`dimensions`" in reply.text) == (422, True)


async def test_one_text_is_a_list_of_one(opened, sparse):
    assert (await opened.post("/embed_sparse", json={"inputs": "a bb"})).json() == [expected("a bb", sparse)]


async def test_a_text_without_weights_has_an_empty_list(opened):
    assert (await opened.post("/embed_sparse", json={"inputs": [" ", "a"]})).json()[0] == []


async def test_the_reply_has_our_headers_and_its_use_is_counted(opened):
    reply = await opened.post("/embed_sparse", json={"inputs": ["one three", "a"]})
    assert reply.headers["x-gateway-cache"] == "hits=0"
    assert reply.headers["x-gateway-fingerprint"]
    again = await opened.post("/embed_sparse", json={"inputs": ["a", "one three"]})
    assert again.headers["x-gateway-cache"] == "hits=2"
    metrics = (await opened.get("/metrics")).text
    assert 'gateway_input_tokens_total{model="s"} 6.0' in metrics


async def test_token_vectors_of_a_model_that_gives_them_are_a_list_for_each_text(opened, sparse):
    sparse.about["kind"] = "multi_vector_encoder"
    reply = await opened.post("/embed_all", json={"inputs": ["one", "three words here"]})
    assert reply.status_code == 200
    for text, found in zip(("one", "three words here"), reply.json(), strict=True):
        np.testing.assert_allclose(found, hashed_rows(text, sparse.describe()), rtol=1e-6)


async def test_token_vectors_are_refused_by_name_where_a_model_gives_none(opened):
    for name in ("m", "s"):
        reply = await opened.post(f"/tei/{name}/embed_all", json={"inputs": "hello"})
        assert (reply.status_code, reply.json()["error_type"]) == (424, "Backend")
        assert f"`{name}` is no multi vector encoder" in reply.json()["error"]


async def test_a_prompt_is_chosen_by_name(opened, sparse):
    await opened.post("/embed_sparse", json={"inputs": "a", "prompt_name": "query"})
    assert sparse.prepared[-1].input_type == "query"
    wrong = await opened.post("/embed_sparse", json={"inputs": "a", "prompt_name": "nothing"})
    assert (wrong.status_code, wrong.json()["error_type"]) == (422, "Validation")
    assert "`nothing`" in wrong.json()["error"]


@pytest.mark.parametrize(("truncate", "rule"), [(True, "end"), (False, "error"), (None, None)])
async def test_truncate_says_what_becomes_of_long_texts(opened, sparse, truncate, rule):
    await opened.post("/embed_sparse", json={"inputs": f"a{truncate}", "truncate": truncate})
    assert sparse.prepared[-1].long_input == rule


async def test_an_embedder_is_refused_as_tei_refuses_it(make, embedder):
    gateway = make(models=(ModelRow(name="m", backend="fake"),), auth=AuthSettings(mode="none"))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway) as client:
        reply = await client.post("/embed_sparse", json={"inputs": "hello"})
    await gateway.close()
    assert (reply.status_code, reply.json()["error_type"]) == (424, "Backend")
    assert reply.json()["error"].startswith("Backend error: Model is not an embedding model with SPLADE pooling")
    assert "`m` is no sparse encoder" in reply.json()["error"]


async def test_a_sparse_encoder_is_refused_where_vectors_are_asked(opened):
    reply = await opened.post("/v1/embeddings", json={"input": "a", "model": "s"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "wrong_model_kind")
    assert "/embed_sparse" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"inputs": []}, 400, "`inputs` cannot be empty"),
        ({"inputs": ["a", ""]}, 400, "`inputs` cannot be empty"),
        ({"inputs": ["a"] * 2049}, 422, "batch size 2049 > maximum allowed batch size 2048"),
        ({}, 422, "'inputs'"),
        ({"inputs": 5}, 422, "'inputs'"),
        ({"inputs": ["a", 5]}, 422, "'inputs'"),
        ({"inputs": "a", "truncate": "yes"}, 422, "'truncate'"),
        ({"inputs": "a", "truncation_direction": "Up"}, 422, "'truncation_direction'"),
        ({"inputs": "a", "truncate": True, "truncation_direction": "Left"}, 422, "only the end"),
    ],
)
async def test_a_wrong_body_is_refused_by_name(opened, body, status, words):
    reply = await opened.post("/embed_sparse", json=body)
    assert reply.status_code == status
    assert words in reply.text


async def test_more_weights_than_a_reply_may_have_are_refused(opened, monkeypatch):
    monkeypatch.setattr(cached, "MAX_NUMBERS", 20)
    reply = await opened.post("/embed_sparse", json={"inputs": ["a bb ccc dddd"] * 3})
    assert (reply.status_code, reply.json()["error_type"]) == (422, "Validation")
    assert "'inputs'" in reply.json()["error"]


async def test_the_path_is_unknown_once_the_door_is_shut(make):
    gateway = make(doors=DoorSettings(tei=False), auth=AuthSettings(mode="none"))
    await gateway.start()
    async with client_of(gateway) as client:
        reply = await client.post("/embed_sparse", json={"inputs": "a"})
    await gateway.close()
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_url")
