"""Ollama's door: its clients get what its own server gives, errors and odd requests included."""

import gzip
import itertools
import json

import jsonschema
import numpy as np
import pytest

from gateway.api.openapi.json_schema import components
from gateway.api.openapi.ollama_operations import OLLAMA_PARSED, bounded_ollama
from gateway.config import AuthSettings, DoorSettings, ModelRow, PageSettings, ServerSettings
from gateway.errors import ClientError, InputTooLong, InvalidValue, Overloaded
from gateway.testing.fakes import FakeBackend, FakeEmbedder, hashed
from gateway.tests.api.conftest import KEY, client_of
from gateway.tests.api.keys import holder
from gateway.wire import ollama as wire
from gateway.wire.ollama import OllamaEmbedBody, OllamaPromptBody, OllamaShowBody

EMBED, OLD = "/api/embed", "/api/embeddings"
NOT_FOUND = 'model "{}" not found, try pulling it first'


async def asked(client, path=EMBED, **body):
    return await client.post(path, json={"model": "m", **body})


def error_of(reply):
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json()) == ["error"]
    return reply.status_code, reply.json()["error"]


async def test_the_reply_is_ollamas(client):
    reply = await asked(client, input=["hello world", "one"])
    assert reply.status_code == 200
    assert list(reply.json()) == ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"]
    np.testing.assert_array_equal(np.array(reply.json()["embeddings"], np.float32), [hashed("hello world", 8), hashed("one", 8)])
    assert reply.json()["prompt_eval_count"] == 3
    assert 0 < reply.json()["load_duration"] <= reply.json()["total_duration"] < 10**10
    assert reply.headers["x-gateway-fingerprint"] == "f" * 24 + ".fake-float32"


async def test_one_text_gives_a_list_of_one_vector(client):
    reply = await asked(client, input="one")
    np.testing.assert_array_equal(np.array(reply.json()["embeddings"], np.float32), [hashed("one", 8)])


async def test_dimensions_are_cut_and_made_length_one_again(client):
    [row] = (await asked(client, input="one", dimensions=3)).json()["embeddings"]
    whole = hashed("one", 8)[:3]
    np.testing.assert_allclose(row, whole / np.linalg.norm(whole), atol=1e-7)


async def test_the_old_endpoint_gives_one_vector_as_the_model_gives_it(client, embedder):
    reply = await asked(client, OLD, prompt="one")
    assert list(reply.json()) == ["embedding"]
    assert reply.json()["embedding"] == [float(each) for each in hashed("one", 8)]  # float32, written as Go writes a float64
    assert embedder.prepared[-1].normalize is False


@pytest.mark.parametrize("refused", ["normalize", "long_input"])
async def test_a_model_that_cannot_do_what_ollama_does_by_default_does_what_it_can(client, embedder, monkeypatch, refused):
    """As an upstream that only has vectors of length 1, or none of the rules for long texts but its own."""
    prepare = embedder.prepare

    async def refusing(inputs):
        if not inputs.normalize and refused == "normalize":
            raise InvalidValue("Invalid value for 'normalize': no.", param="normalize")
        if inputs.long_input == "end" and refused == "long_input":
            raise InvalidValue("Invalid value for 'long_input': no.", param="long_input")
        return await prepare(inputs)

    monkeypatch.setattr(embedder, "prepare", refusing)
    assert (await asked(client, OLD, prompt="one")).json() == {"embedding": [float(each) for each in hashed("one", 8)]}
    assert (await asked(client, input="one", truncate=True)).status_code == 200
    assert embedder.prepared[-1].long_input == (None if refused == "long_input" else "end")


@pytest.mark.parametrize("body", [{}, {"input": ""}, {"input": []}, {"input": None}, {"input": "", "keep_alive": 0}])
async def test_a_request_without_texts_loads_the_model(client, embedder, body):
    reply = await asked(client, **body)
    assert (reply.status_code, reply.json()) == (200, {"model": "m", "embeddings": []})
    assert embedder.num_embedded == 0


@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": None}])
async def test_an_empty_prompt_loads_the_model(client, body):
    reply = await asked(client, OLD, **body)
    assert (reply.status_code, reply.json()) == (200, {"embedding": []})


@pytest.mark.parametrize(
    "name", ["m", "m:latest", "M:latest", "library/m", "registry.ollama.ai/library/m:latest", "org/m:latest", "ORG/M"]
)
async def test_a_model_by_ollamas_names(client, name):
    reply = await asked(client, model=name, input="one")
    assert (reply.status_code, reply.json()["model"]) == (200, name)
    assert (await asked(client, "/api/show", model=name)).status_code == 200
    assert reply.headers["openai-model"] in {"m", "org/m"}


# What is asked, the status, and the error. The source is server/routes.go of ollama/ollama, 0.33, unless another file is named.
ODD = [
    (EMBED, {"model": "x", "input": "a"}, 404, NOT_FOUND.format("x")),  # EmbedHandler: handleScheduleError
    (EMBED, {"model": "x:v1", "input": "a"}, 404, NOT_FOUND.format("x:v1")),
    (EMBED, {"model": "m:v1", "input": "a"}, 404, NOT_FOUND.format("m:v1")),
    (EMBED, {"model": "x"}, 404, NOT_FOUND.format("x")),  # the name is looked up before the texts
    (EMBED, {"input": "a"}, 404, "model '' not found"),  # EmbedHandler: writeModelRefParseError
    (EMBED, {"model": "", "input": "a"}, 404, "model '' not found"),
    (EMBED, {"model": None, "input": "a"}, 404, "model '' not found"),
    (EMBED, {"model": "a b", "input": "a"}, 400, "invalid model name"),  # types/model/name.go: isValidPart
    (EMBED, {"model": ":latest", "input": "a"}, 400, "invalid model name"),
    (EMBED, {"model": "x:", "input": "a"}, 400, "invalid model name"),
    (EMBED, {"model": "m", "input": 5}, 400, "invalid input type"),  # EmbedHandler: `switch i := req.Input.(type)`
    (EMBED, {"model": "m", "input": {"text": "a"}}, 400, "invalid input type"),
    (EMBED, {"model": "m", "input": ["a", 5]}, 400, "invalid input type"),
    (EMBED, {"model": "m", "input": [[1, 2]]}, 400, "invalid input type"),
    (EMBED, {"model": "x", "input": 5}, 400, "invalid input type"),  # before the name is looked up
    (EMBED, {"input": 5}, 404, "model '' not found"),  # but after it is parsed
    (OLD, {"model": "x", "prompt": "a"}, 404, NOT_FOUND.format("x")),  # EmbeddingsHandler: handleScheduleError
    (OLD, {"prompt": "a"}, 400, "model is required"),  # EmbeddingsHandler: writeModelRefParseError
    (OLD, {"model": "a b", "prompt": "a"}, 400, "invalid model name"),
    ("/api/show", {"model": "x"}, 404, "model 'x:latest' not found"),  # ShowHandler: DisplayShortest
    ("/api/show", {"name": "x:v1"}, 404, "model 'x:v1' not found"),
    ("/api/show", {}, 400, "model is required"),
    ("/api/show", {"model": ""}, 400, "model is required"),
    ("/api/show", {"model": "a b"}, 400, "invalid model name"),
]


@pytest.mark.parametrize(("path", "body", "status", "error"), ODD)
async def test_odd_requests_are_answered_as_ollama_answers_them(client, path, body, status, error):
    assert error_of(await client.post(path, json=body)) == (status, error)


@pytest.mark.parametrize("path", [EMBED, OLD, "/api/show"])
@pytest.mark.parametrize("sent", [b"", b"{", b"[]", b'{"model": 5}', b"\xff"])
async def test_a_body_that_cannot_be_read(client, path, sent):
    status, error = error_of(await client.post(path, content=sent))
    assert status == 400
    assert sent or error == "missing request body"  # `errors.Is(err, io.EOF)`


async def test_a_text_longer_than_the_model_reads(client, embedder):
    embedder.raises = InputTooLong("input[1]", 256)
    assert error_of(await asked(client, input=["a", "b"], truncate=False)) == (400, "the input length exceeds the context length")


async def test_more_dimensions_than_there_are_are_refused(client):
    status, error = error_of(await asked(client, input="a", dimensions=9))
    assert status == 400
    assert "8" in error


async def test_a_context_that_would_cut_a_text_is_refused(client):
    assert (await asked(client, input="a b c", options={"num_ctx": 3, "temperature": 1})).status_code == 200
    status, error = error_of(await asked(client, input="a b c", options={"num_ctx": 2}))
    assert status == 400
    assert "num_ctx" in error


async def test_a_prompt_may_be_named_as_at_openais_path(client, embedder):
    """Open WebUI sends it with RAG_EMBEDDING_PREFIX_FIELD_NAME=input_type."""
    embedder.about = {"prompts": ("query",)}
    for path, sent in ((EMBED, {"input": "a"}), (OLD, {"prompt": "a"})):
        reply = await asked(client, path, input_type="query", **sent)
        assert (reply.status_code, reply.headers["x-gateway-prompt"]) == (200, "query")
        assert embedder.prepared[-1].input_type == "query"
        assert error_of(await asked(client, path, input_type="nothing", **sent))[0] == 400


async def test_every_error_below_api_has_ollamas_shape(gateway, client, stranger):
    for method, path in (("POST", EMBED), ("POST", OLD), ("GET", "/api/tags"), ("POST", "/api/show"), ("GET", "/api/version")):
        reply = await stranger.request(method, path, json={"model": "m", "input": "a"})
        assert error_of(reply)[0] == 401
        assert reply.headers["www-authenticate"]
    for path in ("/api/chat", "/api/generate", "/api/pull", "/api/nothing"):
        status, error = error_of(await client.post(path, json={"model": "m"}))
        assert (status, error.partition(":")[0]) == (404, f"Invalid URL (POST {path})")
    for path in (EMBED, "/api/show"):
        reply = await client.get(path)
        assert error_of(reply)[0] == 405
        assert "POST" in reply.headers["allow"]
    assert error_of(await client.post(EMBED, content=b" " * 100_001))[0] == 413
    assert error_of(await client.post("/api/show", content=b" " * 70_000))[0] == 413
    assert error_of(await client.post(EMBED, content=b"x", headers={"content-encoding": "br"}))[0] == 415
    gateway.drain()
    reply = await asked(client, input="a")
    assert error_of(reply)[0] == 503
    assert reply.headers["retry-after"]


async def test_limits_hold(gateway):
    async with holder(gateway, requests_per_minute=1, requests_burst=1) as limited:
        assert (await asked(limited, input="a")).status_code == 200
        reply = await asked(limited, input="a")
        assert error_of(reply)[0] == 429
        assert reply.headers["retry-after"]
        assert (await limited.get("/api/tags")).status_code == 200  # which costs nothing


async def test_an_overload_is_a_503_in_ollamas_shape(client, embedder):
    embedder.raises = Overloaded()
    status, error = error_of(await asked(client, input="a"))
    assert (status, error) == (503, Overloaded().message)


async def test_the_lists_have_every_name_with_a_tag(client):
    tags = (await client.get("/api/tags")).json()["models"]
    assert [each["name"] for each in tags] == ["m:latest", "org/m:latest", "text-embedding-3-small:latest"]
    assert all(each["model"] == each["name"] and each["capabilities"] == ["embedding"] for each in tags)
    assert tags[0]["modified_at"] == "2023-11-14T22:13:20Z"
    assert len(tags[0]["digest"]) == 64
    running = (await client.get("/api/ps")).json()["models"]
    assert [each["name"] for each in running] == [each["name"] for each in tags]
    assert running[0]["context_length"] == 256
    assert (await client.get("/api/version")).json() == {"version": "0.33.0"}


async def test_a_model_is_shown_as_clients_read_it(client):
    shown = (await client.post("/api/show", json={"name": "m"})).json()
    assert shown["capabilities"] == ["embedding"]
    architecture = shown["model_info"]["general.architecture"]
    assert shown["model_info"][f"{architecture}.embedding_length"] == 8
    assert shown["model_info"][f"{architecture}.context_length"] == 256
    assert shown["details"]["quantization_level"] == "float32"


async def test_a_digest_changes_with_the_vectors(client, embedder):
    async def digest():
        return (await client.get("/api/tags")).json()["models"][0]["digest"]

    before = await digest()
    assert await digest() == before
    embedder.fingerprint = "a" * 24 + ".fake-float32"
    assert await digest() != before


async def test_only_what_a_key_may_use_is_shown_and_found(make):
    rows = [ModelRow(name="a", aliases=("a z",), backend="fake"), ModelRow(name="b:small", aliases=("b",), backend="fake")]
    gateway = make(backends=[FakeBackend(a=FakeEmbedder(), **{"b:small": FakeEmbedder()})], models=tuple(rows))
    await gateway.start()
    await gateway.load()
    async with holder(gateway, models=["b:*"]) as scoped:
        assert [each["name"] for each in (await scoped.get("/api/tags")).json()["models"]] == ["b:small", "b:latest"]
        assert [each["name"] for each in (await scoped.get("/api/ps")).json()["models"]] == ["b:small", "b:latest"]
        for name in ("a", "a:latest", "A"):  # as one that there is not
            assert error_of(await asked(scoped, model=name, input="t")) == (404, NOT_FOUND.format(name))
            assert error_of(await asked(scoped, "/api/show", model=name))[0] == 404
        for name in ("a z", "a y"):  # one that there is, and one that there is not
            assert error_of(await asked(scoped, model=name, input="t")) == (400, "invalid model name")
        assert (await asked(scoped, model="b", input="t")).status_code == 200
    await gateway.close()


async def test_a_model_that_gives_no_vectors_is_not_listed(make):
    scores = FakeEmbedder()
    scores.about = {"kind": "reranker"}
    rows = (ModelRow(name="m", backend="fake"), ModelRow(name="r", backend="fake"))
    gateway = make(backends=[FakeBackend(m=FakeEmbedder(), r=scores)], models=rows)
    await gateway.start()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        tags = (await client.get("/api/tags")).json()["models"]  # while nothing is loaded yet
        assert {each["digest"] for each in tags} <= {"0" * 64}
        assert (await client.get("/api/ps")).json() == {"models": []}
        assert (await client.post("/api/show", json={"model": "m"})).json()["model_info"] == {}
        await gateway.load()
        assert [each["name"] for each in (await client.get("/api/tags")).json()["models"]] == ["m:latest"]
        status, error = error_of(await asked(client, model="r", input="a"))
        assert status == 400
        assert "embedder" in error
        assert error_of(await asked(client, model="r"))[0] == 400
        assert error_of(await asked(client, "/api/show", model="r"))[0] == 400
    await gateway.close()


async def test_a_default_model_and_a_catch_all_serve_here_too(make):
    gateway = make(server=ServerSettings(default_model="m"), models=(ModelRow(name="m", aliases=("*",), backend="fake"),))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        reply = await client.post(EMBED, json={"input": "a"})
        assert (reply.status_code, reply.json()["model"]) == (200, "m")
        assert (await client.post(EMBED, json={"input": "a", "model": "any thing"})).status_code == 200
        assert [each["name"] for each in (await client.get("/api/tags")).json()["models"]] == ["m:latest"]
    await gateway.close()


async def test_a_closed_door_is_our_404(make):
    gateway = make(doors=DoorSettings(ollama=False))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        for method, path in (("POST", EMBED), ("POST", OLD), ("GET", "/api/tags"), ("POST", "/api/show"), ("GET", "/api/ps")):
            reply = await client.request(method, path, json={"model": "m", "input": "a"})
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_url")
    await gateway.close()


@pytest.mark.parametrize("has_page", [True, False])
@pytest.mark.parametrize("is_open", [True, False])
async def test_the_root_says_that_a_server_is_there(make, has_page, is_open):
    """AnythingLLM asks HEAD /, others GET /: what counts is the status."""
    gateway = make(
        page=PageSettings(enabled=has_page), doors=DoorSettings(ollama=is_open, tei=False), auth=AuthSettings(mode="none")
    )
    await gateway.start()
    await gateway.load()
    async with client_of(gateway) as client:
        for method in ("HEAD", "GET"):
            assert (await client.request(method, "/")).status_code == (200 if has_page or is_open else 404)
        assert ((await client.get("/")).text == "Ollama is running") == (is_open and not has_page)
        assert (await client.get("/openapi.json")).status_code == 200
    await gateway.close()


@pytest.mark.parametrize("has_default", [True, False])
@pytest.mark.parametrize(
    ("body", "decode"),
    [(OllamaEmbedBody, wire.decode_embed), (OllamaPromptBody, wire.decode_prompt), (OllamaShowBody, wire.decode_show)],
)
def test_a_body_is_parsed_where_the_schema_allows_it(body, decode, has_default):
    schemas = components(OLLAMA_PARSED, [])
    schema = {**schemas, **bounded_ollama(schemas, has_default=has_default)}[body.__name__]
    checked = jsonschema.Draft202012Validator({**schema, "components": {"schemas": schemas}})
    named = {} if body is OllamaShowBody else {"default_model": "d" if has_default else None}
    for values in itertools.product(["m", "", None, 5], ["m", "", None, 5], [None, "5m", "5", 5, True], [None, ["a"], 5]):
        sent = dict(zip(("model", "name", "keep_alive", "input"), values, strict=True))
        try:
            decode(json.dumps(sent).encode(), **named)
        except ClientError:
            assert not checked.is_valid(sent), sent
        else:
            assert checked.is_valid(sent), sent


async def test_a_body_in_gzip(client):
    packed = {"content-encoding": "gzip"}
    assert (await client.post("/api/show", content=gzip.compress(b'{"model": "m"}'), headers=packed)).status_code == 200
    assert (await client.post(EMBED, content=gzip.compress(b'{"model": "m", "input": "a"}'), headers=packed)).status_code == 200
    assert error_of(await client.post("/api/show", content=b"no gzip", headers=packed))[0] == 400
    assert error_of(await client.post("/api/show", content=gzip.compress(b" " * 100_000), headers=packed))[0] == 413


@pytest.mark.parametrize("path", [EMBED, OLD])
async def test_a_request_that_only_loads_a_model_says_which(client, path):
    reply = await asked(client, path)
    assert (reply.status_code, reply.headers["openai-model"]) == (200, "m")
