"""POST /v1/embeddings: what a client gets, and with which headers."""

import base64
import re

import numpy as np
import pytest

from gateway.config import CacheSettings, ModelRow
from gateway.embedding.cache import ENTRY_BYTES
from gateway.testing.fakes import hashed
from gateway.tests.api.conftest import KEY, client_of


async def posted(client, **body):
    return await client.post("/v1/embeddings", json={"model": "m", "input": "hello world", **body})


async def test_the_response_is_openais(client):
    reply = await posted(client, input=["hello world", "one"])
    assert reply.status_code == 200
    assert list(reply.json()) == ["object", "data", "model", "usage"]
    assert [list(row) for row in reply.json()["data"]] == [["object", "index", "embedding"]] * 2
    assert [row["index"] for row in reply.json()["data"]] == [0, 1]
    assert reply.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    rows = np.array([row["embedding"] for row in reply.json()["data"]], dtype=np.float32)
    np.testing.assert_array_equal(rows, [hashed("hello world", 8), hashed("one", 8)])


async def test_base64_and_floats_are_the_same_vectors(client):
    floats = (await posted(client)).json()["data"][0]["embedding"]
    packed = (await posted(client, encoding_format="base64")).json()["data"][0]["embedding"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed), "<f4"), np.array(floats, np.float32))


async def test_token_ids_and_their_text_are_the_same_request(client):
    text, ids = await posted(client, input="hello world"), await posted(client, input=[15339, 1917])
    assert text.json() == ids.json()


async def test_dimensions_are_cut_and_made_length_one_again(client):
    row = np.array((await posted(client, dimensions=3)).json()["data"][0]["embedding"], np.float32)
    whole = hashed("hello world", 8)[:3]
    np.testing.assert_allclose(row, whole / np.linalg.norm(whole), atol=1e-7)


async def test_without_normalize_a_cut_vector_keeps_its_numbers(client):
    row = (await posted(client, dimensions=3, normalize=False)).json()["data"][0]["embedding"]
    np.testing.assert_array_equal(np.array(row, np.float32), hashed("hello world", 8)[:3])


async def test_the_name_the_client_sent_comes_back(client):
    for name in ("m", "org/m", "text-embedding-3-small"):
        reply = await posted(client, model=name)
        assert reply.json()["model"] == reply.headers["openai-model"] == name


async def test_success_carries_every_header_of_the_contract(client):
    headers = (await posted(client)).headers
    assert re.fullmatch(r"req_[0-9a-f]{32}", headers["x-request-id"])
    assert headers["openai-version"] == "2020-10-01"
    assert headers["openai-processing-ms"].isdigit()
    assert re.fullmatch(r"tokenize;dur=[\d.]+, queue;dur=[\d.]+, compute;dur=[\d.]+, encode;dur=[\d.]+", headers["server-timing"])
    assert headers["x-gateway-fingerprint"] == "f" * 24 + ".fake-float32"
    assert headers["content-type"] == "application/json"
    assert "x-gateway-long-inputs" not in headers


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [("my-own.ID_1", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("a/b", False), ("", False)],
)
async def test_a_harmless_request_id_of_the_client_is_kept(client, sent, is_kept):
    reply = await client.post("/v1/embeddings", json={"model": "m", "input": "a"}, headers={"x-request-id": sent})
    assert (reply.headers["x-request-id"] == sent) is is_kept


async def test_a_model_name_cannot_forge_a_header(client):
    reply = await client.get("/v1/models/x%0d%0aevil:%201")
    assert reply.status_code == 404
    assert "evil" not in reply.headers


async def test_extensions_reach_the_embedder(client, embedder):
    await posted(client, long_input="error", input_type="query", normalize=False)
    inputs = embedder.prepared[-1]
    assert (inputs.long_input, inputs.input_type, inputs.normalize) == ("error", "query", False)
    assert inputs.caller.startswith("env-")


async def test_a_large_reply_is_the_same_as_a_small_one(client):
    texts = [f"text {number}" for number in range(2048)]
    rows = (await posted(client, input=texts)).json()["data"]
    assert [row["index"] for row in rows] == list(range(2048))
    np.testing.assert_array_equal(np.array(rows[-1]["embedding"], np.float32), hashed(texts[-1], 8))


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain; charset=latin-1", "nonsense", ""])
async def test_the_content_type_is_not_policed(client, content_type):
    body = '{"model": "m", "input": "grüße"}'.encode()
    reply = await client.post("/v1/embeddings", content=body, headers={"content-type": content_type})
    assert reply.status_code == 200


class TestTheCache:
    async def test_a_header_tells_how_many_inputs_were_known(self, client, embedder):
        for _ in range(2):
            reply = await posted(client, input=["a", "b"])
        assert reply.headers["x-gateway-cache"] == "hits=2"
        assert (await posted(client, input=["a", "c", "a"])).headers["x-gateway-cache"] == "hits=2"
        assert [inputs.texts for inputs in embedder.prepared] == [["a", "b"], ["c"]]

    async def test_one_entry_serves_every_size_and_encoding(self, client, embedder):
        await posted(client)
        row = np.array((await posted(client, dimensions=3)).json()["data"][0]["embedding"], np.float32)
        packed = (await posted(client, encoding_format="base64", input=[15339, 1917])).json()["data"][0]["embedding"]
        whole = hashed("hello world", 8)
        np.testing.assert_allclose(row, whole[:3] / np.linalg.norm(whole[:3]), atol=1e-7)
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed), "<f4"), whole)
        assert len(embedder.prepared) == 1

    async def test_a_reply_from_the_cache_is_the_same_reply(self, client):
        first, again = await posted(client, input=["one", "two words"]), await posted(client, input=["one", "two words"])
        assert first.content == again.content

    async def test_off_there_is_no_header_and_every_request_is_work(self, make, embedder):
        gateway = make(cache=CacheSettings(max_bytes=0))
        await gateway.start()
        await gateway.load()
        async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
            replies = [await posted(client) for _ in range(2)]
        assert all("x-gateway-cache" not in reply.headers for reply in replies)
        assert len(embedder.prepared) == 2
        await gateway.close()

    async def test_what_it_holds_and_what_was_found_are_counted(self, client, stranger):
        for _ in range(3):
            await posted(client)
        told = (await stranger.get("/metrics")).text
        assert 'gateway_cache_lookups_total{model="m",result="hit"} 2.0' in told
        assert 'gateway_cache_lookups_total{model="m",result="miss"} 1.0' in told
        [held] = re.findall(r"^gateway_cache_bytes ([\d.]+)$", told, re.MULTILINE)
        assert float(held) == ENTRY_BYTES + 8 * 4


async def test_a_row_may_ask_for_a_layer_norm_before_the_cut(make):
    gateway = make(models=(ModelRow(name="m", backend="fake", layer_norm_before_cut=True),))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        whole, short = await posted(client), await posted(client, dimensions=4)
    row = hashed("hello world", 8)
    expected = ((row - row.mean()) / row.std())[:4]
    np.testing.assert_allclose(whole.json()["data"][0]["embedding"], row, atol=1e-6)
    np.testing.assert_allclose(short.json()["data"][0]["embedding"], expected / np.linalg.norm(expected), atol=1e-4)
    assert short.headers["x-gateway-fingerprint"].endswith("-ln")
    await gateway.close()
