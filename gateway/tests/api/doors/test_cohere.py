"""Cohere's door over HTTP: the same vectors and the same limits as at /v1/embeddings, in Cohere's words."""

import base64

import numpy as np
import pytest

from gateway.config import DoorSettings, ModelRow, ServerSettings
from gateway.embedding.embedder import Prepared
from gateway.embedding.quantization import quantize, ranges_of
from gateway.errors import InvalidValue, UpstreamUnavailable
from gateway.testing import upstream_server as standin
from gateway.testing.fakes import FakeEmbedder, hashed
from gateway.testing.upstream_server import Standin
from gateway.tests.api.conftest import KEY, client_of
from gateway.tests.api.keys import add
from gateway.upstream.backend import UPSTREAM_BACKENDS

RANGES = ranges_of([-0.5] * 8, [0.5] * 8)
PATHS = ["/v1/embed", "/v2/embed"]
BODY = {"model": "m", "texts": ["hello world", "b"], "input_type": "search_document"}


class ShortEmbedder(FakeEmbedder):
    """Reads two tokens at once. It cuts longer texts, in any way but those that `cannot` names."""

    cannot: tuple[str, ...] = ()

    async def prepare(self, inputs):
        prepared = await super().prepare(inputs)
        if inputs.long_input in self.cannot:
            raise InvalidValue("Invalid value for 'long_input': not here.", param="long_input")
        is_long = [count > 2 for count in prepared.token_counts]
        return Prepared(inputs, prepared.token_counts, is_long, prepared.rule, stages=prepared.stages)


@pytest.fixture
def embedder(request):
    return ShortEmbedder()


async def asked(client, path="/v2/embed", **change):
    reply = await client.post(path, json={**BODY, **change})
    assert reply.status_code == 200, reply.text
    return reply


async def test_the_second_version_gives_vectors_by_type(client):
    reply = await asked(client, embedding_types=["float", "base64"])
    body = reply.json()
    rows = np.stack([hashed(text, 8) for text in BODY["texts"]])
    np.testing.assert_array_equal(np.array(body["embeddings"]["float"], dtype=np.float32), rows)
    assert [base64.b64decode(text) for text in body["embeddings"]["base64"]] == [row.tobytes() for row in rows]
    assert body["id"] == reply.headers["x-request-id"]
    assert body["texts"] == BODY["texts"]
    assert body["meta"] == {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 3}}
    assert body["response_type"] == "embeddings_by_type"
    assert list(body["embeddings"]) == ["float", "base64"]


async def test_the_first_version_gives_floats_unless_types_are_asked_for(client):
    plain = (await asked(client, "/v1/embed", input_type=None)).json()
    by_type = (await asked(client, "/v1/embed", embedding_types=["float"])).json()
    assert plain["response_type"] == "embeddings_floats"
    assert by_type["response_type"] == "embeddings_by_type"
    assert by_type["embeddings"]["float"] == plain["embeddings"]
    assert plain["meta"]["api_version"] == {"version": "1"}


async def test_several_types_come_from_one_computation_and_are_the_quantized_floats(client, embedder):
    embedder.about = {"ranges": RANGES}
    kinds = ["ubinary", "float", "int8", "uint8", "binary", "base64"]
    reply = await asked(client, embedding_types=kinds)
    found = reply.json()["embeddings"]
    assert list(found) == kinds
    rows = np.stack([hashed(text, 8) for text in BODY["texts"]])
    for kind in ("int8", "uint8", "binary", "ubinary"):
        assert found[kind] == quantize(rows, kind, RANGES).tolist()
    assert embedder.num_embedded == 1
    assert reply.headers["x-gateway-quantization"] == RANGES.id


@pytest.mark.parametrize("path", PATHS)
async def test_a_type_that_the_model_does_not_have_is_refused_by_cohere_s_name(client, path):
    refused = await client.post(path, json={**BODY, "embedding_types": ["float", "int8"]})
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("Invalid value for 'embedding_types': of the model `m` the ranges for 'int8'")
    assert "float16" not in refused.json()["message"]  # Cohere's paths have no such type


async def test_dimensions_are_cut_as_everywhere_and_refused_by_cohere_s_name(client):
    reply = await asked(client, output_dimension=3)
    other = await client.post("/v1/embeddings", json={"model": "m", "input": BODY["texts"], "dimensions": 3})
    assert reply.json()["embeddings"]["float"] == [row["embedding"] for row in other.json()["data"]]
    refused = await client.post("/v2/embed", json={**BODY, "output_dimension": 9})
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("Invalid value for 'output_dimension': 9.")


@pytest.mark.parametrize(
    ("prompts", "input_type", "used", "header"),
    [
        (("query", "passage"), "search_query", "query", "query"),
        (("query", "passage"), "search_document", "passage", "passage"),
        (("query", "passage"), "classification", "classification", "none"),
        (("query", "passage", "Clustering"), "clustering", "Clustering", "Clustering"),
        (("classification",), "classification", "classification", "classification"),
        ((), "search_query", "query", "none"),
        ((), "clustering", "clustering", "none"),
    ],
)
async def test_an_input_type_is_the_model_s_prompt(client, embedder, prompts, input_type, used, header):
    embedder.about = {"prompts": prompts}
    reply = await asked(client, input_type=input_type)
    assert embedder.prepared[-1].input_type == used
    assert reply.headers["x-gateway-prompt"] == header


async def test_an_unknown_input_type_is_refused_by_name(client, embedder):
    embedder.about = {"prompts": ("query",)}
    for path in PATHS:
        refused = await client.post(path, json={**BODY, "input_type": "poem"})
        assert refused.status_code == 400
        assert refused.json() == {"message": "Invalid value for 'input_type': this model has no prompt 'poem'; it has 'query'."}


async def test_a_text_is_never_cut_in_silence(client, embedder):
    reply = await asked(client, texts=["a b c", "a"])
    assert embedder.prepared[-1].long_input == "end"
    assert reply.headers["x-gateway-long-inputs"] == "shortened=1"
    assert reply.json()["meta"]["warnings"] == ["1 of the texts are longer than the model reads: they were cut at their end."]


async def test_a_model_that_cannot_cut_keeps_its_own_rule_unless_a_client_asked(client, embedder):
    embedder.cannot = ("end",)
    reply = await asked(client, texts=["a b c"])
    assert embedder.prepared[-1].long_input is None
    assert reply.headers["x-gateway-long-inputs"] == "chunked=1"
    assert "averaged" in reply.json()["meta"]["warnings"][0]
    refused = await client.post("/v2/embed", json={**BODY, "truncate": "END"})
    assert refused.status_code == 400
    assert refused.json() == {"message": "Invalid value for 'truncate': not here."}


async def test_a_model_on_another_server_that_only_refuses_long_texts_embeds_short_ones(make):
    async with Standin(standin.openai).serving() as server:
        row = ModelRow(name="m", backend="openai", settings={"url": server.url, "model": "theirs"})
        gateway = make(models=(row,), backends=UPSTREAM_BACKENDS)
        await gateway.start()
        await gateway.load()
        async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
            for path in PATHS:
                await asked(client, path)
        await gateway.close()


async def test_lengths_may_be_the_model_s_own_or_more(client):
    for max_tokens in (256, 257.0):
        await asked(client, max_tokens=max_tokens)
    refused = await client.post("/v2/embed", json={**BODY, "max_tokens": 255})
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("Invalid value for 'max_tokens': texts are cut to the 256 tokens")


@pytest.mark.parametrize(("priority", "service_class"), [(0, "interactive"), (5, "background")])
async def test_a_priority_is_a_service_class(client, embedder, priority, service_class):
    await asked(client, priority=priority)
    assert embedder.prepared[-1].service_class == service_class


@pytest.mark.parametrize("path", PATHS)
async def test_every_error_has_cohere_s_shape(make, embedder, path):
    gateway = make(server=ServerSettings(max_body_bytes=1000, max_buffered_bytes=150_000))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client, client_of(gateway) as stranger:
        replies = {
            "JSON": await client.post(path, content=b"{"),
            "model `x`": await client.post(path, json={**BODY, "model": "x"}),
            "too large": await client.post(path, content=b" " * 2000),
            "Content-Encoding": await client.post(path, content=b"{}", headers={"content-encoding": "br"}),
            "no api key supplied": await stranger.post(path, json=BODY),
            "invalid api token": await stranger.post(path, json=BODY, headers={"authorization": "Bearer sk-wrong"}),
            "Not allowed": await client.get(path),
            "headers": await client.post(path, json=BODY, headers={"x": "y" * 40_000}),
        }
        embedder.raises = UpstreamUnavailable("m", "does not answer")
        replies["does not answer"] = await client.post(path, json=BODY)
        gateway.drain()
        replies["overloaded"] = await client.post(path, json=BODY)
    await gateway.close()
    for words, reply in replies.items():
        assert set(reply.json()) == {"message"}
        assert words in reply.json()["message"]
        assert reply.headers["x-request-id"]
    assert [reply.status_code for reply in replies.values()] == [400, 404, 413, 415, 401, 401, 405, 431, 503, 503]
    assert replies["overloaded"].headers["retry-after"]


async def test_an_unembeddable_text_is_named_as_the_client_knows_it(client, embedder):
    embedder.poison = "b"
    reply = await client.post("/v2/embed", json=BODY)
    assert reply.status_code == 500
    assert "texts[1]" in reply.json()["message"]


async def test_limits_hold_at_this_door_too(gateway):
    key, _ = add(gateway, requests_per_minute=1, requests_burst=1)
    async with client_of(gateway, authorization=f"Bearer {key}") as client:
        first, second = [await client.post("/v2/embed", json=BODY) for _ in range(2)]
    assert (first.status_code, second.status_code) == (200, 429)
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert set(second.json()) == {"message"}
    assert int(second.headers["retry-after"]) >= 1


async def test_a_closed_door_is_an_unknown_path(make):
    gateway = make(doors=DoorSettings(cohere=False))
    await gateway.start()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        refused = await client.post("/v1/tokenize", json={"model": "m", "text": "a"})
        assert refused.json()["error"]["param"] == "input"
        for path in (*PATHS, "/v1/detokenize"):
            reply = await client.post(path, json=BODY)
            assert reply.status_code == 404
            assert reply.json()["error"]["code"] == "unknown_url"
    await gateway.close()


async def test_a_base_url_may_end_in_a_version(client):
    for path in ("/v1/v2/embed", "/v1/v1/embed", "/v2//embed/"):
        await asked(client, path)


async def test_a_text_is_tokenised_as_coheres_clients_ask(client):
    reply = await client.post("/v1/tokenize", json={"model": "m", "text": "hello big world"})
    assert reply.json() == {
        "tokens": [5, 3, 5],
        "token_strings": ["hello", "big", "world"],
        "meta": {"api_version": {"version": "1"}},
    }
    back = await client.post("/v1/detokenize", json={"model": "m", "tokens": [5, 3]})
    assert back.json() == {"text": "aaaaa aaa", "meta": {"api_version": {"version": "1"}}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"text": ""}, "Invalid 'text': a text cannot be an empty string."),
        ({"text": 5}, "Invalid type for 'text': expected a string, but got an integer instead."),
        ({"text": "a", "model": None}, "Missing required parameter: 'model'."),
        ({"text": "a", "model": "x"}, "The model `x` does not exist or you do not have access to it."),
    ],
)
async def test_an_odd_text_is_refused_by_name_in_coheres_shape(client, body, words):
    refused = await client.post("/v1/tokenize", json={"model": "m", **body})
    assert refused.status_code == (404 if body.get("model") else 400)
    assert refused.json()["message"].startswith(words)
    assert [*refused.json()] == ["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"text": "a", "input": "b"}, "Invalid value for 'text': 'input' has texts too; send one of them."),
        ({"text": None}, "Missing required parameter: 'input'."),
    ],
)
async def test_a_body_that_is_not_coheres_is_refused_in_our_shape(client, body, words):
    refused = await client.post("/v1/tokenize", json={"model": "m", **body})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "m"}, "Missing required parameter: 'tokens'."),
        ({"tokens": [1]}, "Missing required parameter: 'model'."),
        ({"model": "m", "tokens": []}, "Invalid 'tokens': the array must not be empty."),
        ({"model": "m", "tokens": [-1]}, "Invalid value for 'tokens[0]'"),
        ({"model": "m", "tokens": ["a"]}, "Invalid type for 'tokens[0]'"),
        ({"model": "m", "tokens": [[1]]}, "Invalid type for 'tokens[0]'"),
        ({"model": "m", "tokens": [1] * 40_000}, "Invalid 'tokens'"),
    ],
)
async def test_odd_tokens_are_refused_in_coheres_shape(client, body, words):
    refused = await client.post("/v1/detokenize", json=body)
    assert refused.status_code == 400
    assert refused.json()["message"].startswith(words)
