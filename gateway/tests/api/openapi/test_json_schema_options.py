"""At every door, what the schema of a body allows, one field or two at once, its parser takes."""

import asyncio
import json
from functools import partial
from itertools import combinations, product

import jsonschema
import pytest

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, DoorSettings, ModelRow, ServerSettings, StoreSettings
from gateway.errors import ClientError
from gateway.testing.fakes import FakeBackend, FakeEmbedder, FakeReranker
from gateway.tests.api.conftest import client_of
from gateway.wire import (
    cohere,
    cohere_tokens,
    ollama,
    request,
    rerank,
    tei,
    tei_predict,
    tei_rerank,
    tei_sparse,
    tei_tokenize,
    tokenize,
)

VALUES = [
    None, True, False, 0, 1, 2, -1, 2.5, "", "a", "image", "END", "NONE", "START", "Left", "left", "Right", "right", "chunk", "end",
    "error", "float", "float16", "base64", "int8", "binary", "little", "text", "5m", "5y", ["a"], ["float"], ["int8"], [], {},
    {"num_ctx": 0}, [{"content": [{"type": "text", "text": "a"}]}], {"mode": "disabled"},
]  # fmt: skip
# Fields that say the same in the words of several servers, and may not contradict each other. The document does not say which do:
# its schemas would be unions of unions, which programs that write clients cannot read.
SYNONYMS = (
    {"long_input", "truncate", "truncation", "truncate_prompt_tokens", "max_chunks_per_doc"},
    {"dimensions", "output_dimension", "output_dimensionality"},
    {"input_type", "prompt_name", "task", "task_type", "text_type"},
    {"normalize", "normalized", "use_activation", "embd_normalize"},
    {"encoding_format", "embedding_type", "encoding_type", "embedding_types", "output_dtype", "embed_dtype"},
    {"top_n", "top_k"},
    {"raw_scores", "use_activation", "activation"},
)


def decode_either(raw, **named):
    return (tei_rerank if tei_rerank.is_tei(raw) else rerank).decode(raw, **named)


BODIES = [
    ("/v1/embeddings", request.decode, {"input": "a"}),
    ("/v1/rerank", rerank.decode, {"query": "q", "documents": ["a"]}),
    ("/v2/rerank", rerank.decode, {"query": "q", "documents": ["a"]}),
    ("/rerank", decode_either, {"query": "q", "documents": ["a"]}),
    ("/rerank", decode_either, {"query": "q", "texts": ["a"]}),
    ("/embed", tei.decode_embed, {"inputs": "a"}),
    ("/", tei.decode_any, {"inputs": "a"}),
    ("/embed_sparse", tei_sparse.decode, {"inputs": "a"}),
    ("/tokenize", tei_tokenize.decode_tokenize, {"inputs": "a"}),
    ("/decode", tei_tokenize.decode_ids, {"ids": [1]}),
    ("/predict", tei_predict.decode_predict, {"inputs": "a"}),
    ("/v1/embed", partial(cohere.decode, version="1"), {"texts": ["a"]}),
    ("/v2/embed", partial(cohere.decode, version="2"), {"texts": ["a"], "input_type": "search_query"}),
    ("/api/embed", ollama.decode_embed, {"input": "a"}),
    ("/api/embeddings", ollama.decode_prompt, {"prompt": "a"}),
    ("/v1/tokenize", partial(tokenize.decode, takes_text=True), {"input": "a"}),
    ("/v1/tokenize", partial(tokenize.decode, takes_text=True), {"text": "a"}),
    ("/v1/detokenize", cohere_tokens.decode_tokens, {"tokens": [1]}),
]


async def shown(data_dir, **doors):
    """The document of a gateway whose models are not loaded: the widest schemas there are."""
    rows = tuple(ModelRow(name=name, backend="fake") for name in ("m", "r"))
    server, store = ServerSettings(port=0, default_model="m"), StoreSettings(data_dir=str(data_dir))
    config = Config(server=server, store=store, auth=AuthSettings(mode="none"), doors=DoorSettings(**doors), models=rows)
    gateway = Gateway(config, backends=[FakeBackend(m=FakeEmbedder(), r=FakeReranker())])
    await gateway.start()
    async with client_of(gateway) as client:
        reply = await client.get("/openapi.json")
    await gateway.close()
    return reply.json()


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return asyncio.run(shown(tmp_path_factory.mktemp("options")))


def body_of(document, path):
    """The schema of the body, and a check of bodies."""
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return schema, jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def fields_of(document, schema):
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found = set(schema.get("properties", ()))
    return found.union(*(fields_of(document, part) for word in ("allOf", "anyOf") for part in schema.get(word, ())))


def is_parsed(decode, body):
    try:
        decode(json.dumps(body).encode(), default_model="m")
    except ClientError:
        return False
    return True


@pytest.mark.parametrize(("path", "decode", "body"), BODIES, ids=[f"{path} {min(body)}" for path, _, body in BODIES])
def test_what_the_document_allows_is_parsed(document, path, decode, body):
    schema, check = body_of(document, path)
    body = {"model": "m", **body}
    sent = {}
    for name in fields_of(document, schema) - {"model"}:
        allowed = [value for value in VALUES if check.is_valid({**body, name: value})]
        assert not [(name, value) for value in allowed if not is_parsed(decode, {**body, name: value})]
        sent[name] = sorted(allowed, key=lambda value: value is None)[:6]
    for first, second in combinations(sent, 2):
        if not any({first, second} <= group for group in SYNONYMS):
            both = [{**body, first: one, second: other} for one, other in product(sent[first], sent[second])]
            assert not [each for each in both if check.is_valid(each) and not is_parsed(decode, each)]


def test_a_closed_door_leaves_one_form_of_a_body_in_the_document(document, tmp_path):
    closed = asyncio.run(shown(tmp_path, tei=False, cohere=False))
    for path, theirs in (("/rerank", {"query": "q", "texts": ["a"]}), ("/v1/tokenize", {"text": "a"})):
        assert body_of(document, path)[1].is_valid({"model": "m", **theirs})
        assert not body_of(closed, path)[1].is_valid({"model": "m", **theirs})
        assert "body with" in document["paths"][path]["post"]["summary"]
        assert "body with" not in closed["paths"][path]["post"]["summary"]
