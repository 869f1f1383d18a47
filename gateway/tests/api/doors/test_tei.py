"""TEI's door around a fake embedder: models in the path, keys, limits, options, and what the setting closes."""

import pytest

from gateway.config import DoorSettings, LimitSettings, ModelRow, ServerSettings
from gateway.testing.fakes import FakeBackend, FakeEmbedder, FakeReranker, hashed
from gateway.tests.api.conftest import KEY, client_of

TEI_PATHS = ("/embed", "/similarity", "/", "/invocations", "/vertex", "/predict", "/tokenize", "/decode")
JSON = {"content-type": "application/json"}


@pytest.fixture
async def serve(make):
    """A client, with the key, of a gateway with these sections; closed at the end."""
    gateways, clients = [], []

    async def started(**sections):
        gateway = make(**sections)
        gateways.append(gateway)
        await gateway.start()
        await gateway.load()
        clients.append(client_of(gateway, authorization=f"Bearer {KEY}"))
        return clients[-1]

    yield started
    for client in clients:
        await client.aclose()
    for gateway in gateways:
        await gateway.close()


def two_models(embedder):
    rows = (ModelRow(name="m", aliases=("org/m",), backend="fake"), ModelRow(name="other", backend="fake"))
    return {"models": rows, "backends": [FakeBackend(m=embedder, other=FakeEmbedder(dimensions=4))]}


@pytest.mark.parametrize(
    ("path", "dimensions"),
    [
        ("/tei/m/embed", 8), ("/tei/org/m/embed", 8), ("/tei/org/m", 8), ("/tei/other/embed", 4), ("/tei/other/", 4),
        ("/embed", None),
    ],
)  # fmt: skip
async def test_a_model_in_the_path_is_the_one_that_answers(serve, embedder, path, dimensions):
    client = await serve(**two_models(embedder))
    reply = await client.post(path, json={"inputs": "a"})
    if dimensions is None:
        assert reply.status_code == 422
        assert "/tei/{model}/embed" in reply.json()["error"]
    else:
        assert [len(row) for row in reply.json()] == [dimensions]


async def test_without_a_model_in_the_path_the_default_one_answers(serve, embedder):
    client = await serve(**two_models(embedder), server=ServerSettings(default_model="other"))
    assert len((await client.post("/embed", json={"inputs": "a"})).json()[0]) == 4


async def test_a_model_that_is_not_there_is_a_404_in_teis_shape(client):
    reply = await client.post("/tei/none/embed", json={"inputs": "a"})
    assert (reply.status_code, reply.json()["error_type"]) == (404, "Validation")


async def test_a_vector_is_that_of_openais_road_and_shares_its_cache(client, embedder):
    await client.post("/v1/embeddings", json={"model": "m", "input": "a b"})
    reply = await client.post("/embed", json={"inputs": ["a b"]})
    assert reply.json() == [pytest.approx(hashed("a b", 8).tolist(), abs=1e-6)]
    assert reply.headers["x-gateway-cache"] == "hits=1"
    assert (reply.headers["x-compute-tokens"], reply.headers["x-compute-characters"]) == ("2", "3")
    assert embedder.num_embedded == 1


@pytest.mark.parametrize(("truncate", "rule"), [(True, "end"), (False, "error"), (None, None)])
async def test_truncate_is_a_rule_and_without_it_the_models_own_applies(client, embedder, truncate, rule):
    assert (await client.post("/embed", json={"inputs": "a", "truncate": truncate})).status_code == 200
    assert embedder.prepared[-1].long_input == rule


@pytest.mark.parametrize("direction", ["Left", "left"])
async def test_what_would_be_cut_elsewhere_is_refused_by_name(client, direction):
    reply = await client.post("/embed", json={"inputs": "a", "truncation_direction": direction})
    assert reply.status_code == 422
    assert "`truncation_direction`" in reply.json()["error"]
    uncut = await client.post("/embed", json={"inputs": "a", "truncation_direction": direction, "truncate": False})
    assert uncut.status_code == 200  # nothing is cut


async def test_a_prompt_is_known_by_the_models_own_name_alone(client, embedder):
    embedder.about = {"prompts": ("passage",)}
    reply = await client.post("/embed", json={"inputs": "a", "prompt_name": "passage"})
    assert (reply.status_code, reply.headers["x-gateway-prompt"]) == (200, "passage")
    for name in ("document", "query"):
        reply = await client.post("/embed", json={"inputs": "a", "prompt_name": name})
        assert reply.status_code == 422
        assert f"`default-prompt-name` is set to `{name}`" in reply.json()["error"]
        assert "'passage'" in reply.json()["error"]


async def test_ids_go_to_a_model_that_reads_them_and_to_no_other(client, embedder):
    reply = await client.post("/embed", json={"inputs": [5, 6]})
    assert reply.status_code == 422
    assert "Invalid 'inputs': the model `m`" in reply.json()["error"]
    embedder.about = {"takes_token_ids": True}
    await client.post("/embed", json={"inputs": ["a", [5, 6]]})
    assert embedder.prepared[-1].token_ids == [None, [5, 6]]


async def test_a_body_must_say_that_it_is_json(client):
    for path in TEI_PATHS:
        for headers in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
            reply = await client.post(path, content=b'{"inputs": "a"}', headers=headers)
            assert (reply.status_code, reply.headers["content-type"]) == (415, "text/plain; charset=utf-8")
            assert reply.text == "Expected request with `Content-Type: application/json`"
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"):
        assert (await client.post("/embed", content=b'{"inputs": "a"}', headers={"content-type": kind})).status_code == 200


@pytest.mark.parametrize("path", TEI_PATHS)
async def test_what_teis_parser_refuses_is_plain_text(client, path):
    bodies = {b"": 400, b"{": 400, b"\xff": 400, b"[]": 422, b"5": 422, b"null": 422, b"{}": 422, b'{"inputs":{}}': 422}
    for content, status in bodies.items():
        reply = await client.post(path, content=content, headers=JSON)
        assert (reply.status_code, reply.headers["content-type"]) == (status, "text/plain; charset=utf-8"), content
        assert reply.text.startswith("Failed to")


async def test_a_key_is_needed_and_its_refusal_says_so(stranger):
    for path in TEI_PATHS:
        reply = await stranger.post(path, json={"inputs": "a"})
        assert (reply.status_code, set(reply.json())) == (401, {"error", "error_type"})
        assert reply.headers["www-authenticate"].startswith("Bearer")
        assert reply.headers["x-request-id"]


async def test_below_a_model_in_the_path_every_error_is_teis(client, stranger):
    for method, path in (("GET", "/tei/m/info"), ("POST", "/tei/m/rerank"), ("POST", "/tei/m/embed"), ("POST", "/tei/m")):
        reply = await stranger.request(method, path, json={"query": "a", "texts": ["b"]})
        assert (reply.status_code, set(reply.json())) == (401, {"error", "error_type"}), path
    for method, path in (("GET", "/tei/none/info"), ("POST", "/tei/none/rerank")):
        reply = await client.request(method, path, json={"query": "a", "texts": ["b"]})
        assert (reply.status_code, reply.json()["error_type"]) == (404, "Validation"), path
    assert (await client.post("/tei/m/info")).json()["error_type"] == "Validation"  # 405
    for content, status in ((b"{", 400), (b'{"query":"a"}', 422), (b"[]", 422)):
        reply = await client.post("/tei/m/rerank", content=content, headers=JSON)
        assert (reply.status_code, reply.headers["content-type"]) == (status, "text/plain; charset=utf-8"), content
        assert reply.text.startswith("Failed to")


async def test_where_other_servers_have_the_path_too_an_error_is_teis_once_the_body_is(client, stranger):
    for method, path in (("GET", "/info"), ("POST", "/rerank"), ("POST", "/tei/m/v1/embeddings")):
        assert "code" in (await stranger.request(method, path, json={})).json()["error"], path
    for path in ("/rerank", "/tei/m/rerank"):
        reply = await client.post(path, json={"query": "a", "documents": 5, "model": "m"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_type"), path


async def test_a_page_at_the_root_keeps_its_own_errors(stranger):
    assert (await stranger.get("/")).status_code == 200
    assert "code" in (await stranger.put("/")).json()["error"]


async def test_what_is_too_large_is_plain_text(client):
    reply = await client.post("/embed", content=b" " * 200_000, headers=JSON)
    assert (reply.status_code, reply.headers["content-type"]) == (413, "text/plain; charset=utf-8")


async def test_similarity_is_the_cosine_of_each(client):
    sentences = {"source_sentence": "a", "sentences": ["a", "b c"]}
    reply = await client.post("/similarity", json={"inputs": sentences, "parameters": {"truncate": True}})
    expected = [1.0, float(hashed("a", 8) @ hashed("b c", 8))]
    assert reply.json() == pytest.approx(expected, abs=1e-6)
    for path in ("/", "/invocations", "/tei/m"):
        assert (await client.post(path, json={"inputs": sentences})).json() == reply.json()
    for wrong, status in (({"sentences": []}, 400), ({"source_sentence": ""}, 400), ({"sentences": ["a", ""]}, 400)):
        assert (await client.post("/similarity", json={"inputs": sentences | wrong})).status_code == status


async def test_vertex_splits_the_rows_by_instance(client):
    instances = [{"inputs": "a"}, {"inputs": ["b", "c"]}]
    reply = await client.post("/vertex", json={"instances": instances})
    assert [len(rows) for rows in reply.json()["predictions"]] == [1, 2]
    for wrong, status in (([*instances[:1], {"inputs": "b", "normalize": False}], 422), ([], 400), ([{"inputs": ""}], 400)):
        assert (await client.post("/vertex", json={"instances": wrong})).status_code == status


async def test_more_inputs_than_2048_are_refused_in_teis_words(client):
    reply = await client.post("/embed", json={"inputs": ["a"] * 2049})
    assert reply.json() == {"error": "batch size 2049 > maximum allowed batch size 2048", "error_type": "Validation"}


async def test_a_reranker_gives_no_vectors_and_no_classes(serve):
    client = await serve(models=(ModelRow(name="r", backend="fake"),), backends=[FakeBackend(r=FakeReranker())])
    for path in ("/embed", "/predict"):
        reply = await client.post(path, json={"inputs": "a"})
        assert (reply.status_code, reply.json()["error_type"]) == (424, "Backend")
    info = (await client.get("/info")).json()
    assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert len((await client.post("/tokenize", json={"inputs": "a b"})).json()[0]) == 3


async def test_a_limit_is_teis_429(serve):
    client = await serve(limits=LimitSettings(requests_per_minute=1, requests_burst=1))
    assert (await client.post("/embed", json={"inputs": "a"})).status_code == 200
    reply = await client.post("/embed", json={"inputs": "a"})
    assert (reply.status_code, reply.json()["error_type"]) == (429, "Overloaded")
    assert int(reply.headers["retry-after"]) > 0


async def test_tokens_that_no_model_computes_are_not_charged(serve):
    client = await serve(limits=LimitSettings(tokens_per_minute=4, tokens_burst=4))
    for _ in range(3):
        assert (await client.post("/v1/tokenize", json={"model": "m", "input": "a b c"})).status_code == 200
        assert (await client.post("/tokenize", json={"inputs": "a b c"})).status_code == 200
    assert (await client.post("/embed", json={"inputs": "a b c"})).status_code == 200
    assert (await client.post("/embed", json={"inputs": "a b d"})).status_code == 429


async def test_info_serves_two_kinds_of_clients(client, embedder):
    embedder.about = {"pooling": "lasttoken"}
    azure = (await client.get("/info", params={"api-version": "2024-05-01-preview"})).json()
    assert azure == {"model_name": "m", "model_type": "embeddings", "model_provider_name": "embeddings-gateway"}
    tei = (await client.get("/info")).json()
    assert tei["model_type"] == {"embedding": {"pooling": "last_token"}}
    assert {name: tei[name] for name in ("model_name", "model_provider_name")} == {
        name: azure[name] for name in ("model_name", "model_provider_name")
    }
    assert (tei["max_input_length"], tei["max_client_batch_size"], tei["auto_truncate"]) == (256, 2048, True)
    assert (await client.get("/tei/org/m/info")).json() == tei
    assert (await client.get("/tei/none/info")).status_code == 404


async def test_info_is_of_the_model_that_embeds(serve):
    rows = (ModelRow(name="r", backend="fake"), ModelRow(name="e", backend="fake"))
    client = await serve(models=rows, backends=[FakeBackend(r=FakeReranker(), e=FakeEmbedder())])
    assert (await client.post("/embed", json={"inputs": "a"})).headers["openai-model"] == "e"
    assert (await client.get("/info")).json()["served_model_name"] == "e"
    assert (await client.get("/info", params={"api-version": "1"})).json()["model_name"] == "e"
    assert (await client.get("/tei/r/info")).json()["served_model_name"] == "r"


async def test_a_closed_door_is_a_plain_404(serve):
    client = await serve(doors=DoorSettings(tei=False))
    for path in (*TEI_PATHS, "/tei/m/embed"):
        reply = await client.post(path, json={"inputs": "a"})
        assert reply.status_code in {404, 405}, path  # the page is at /
        assert reply.json()["error"]["code"] in {"unknown_url", "method_not_allowed"}
    for method, path in (
        ("POST", "/tei/m"), ("POST", "/tei/m/v1/embeddings"), ("POST", "/tei/m/rerank"), ("GET", "/tei/m/info"),
        ("GET", "/tei/m/health"),
    ):  # fmt: skip
        reply = await client.request(method, path, json={"input": "a"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_url"), path
    assert (await client.get("/info")).json()["model_type"] == "embeddings"
    assert (await client.post("/v1/tokenize", json={"model": "m", "input": "a"})).status_code == 200
    assert not {"/embed", "/tokenize"} & set((await client.get("/openapi.json")).json()["paths"])


async def test_tokenize_has_byte_offsets_and_null_for_what_stands_around(client):
    reply = await client.post("/tokenize", json={"inputs": ["Ünï b", "c"]})
    assert reply.json() == [
        [
            {"id": 0, "text": "[CLS]", "special": True, "start": None, "stop": None},
            {"id": 3, "text": "Ünï", "special": False, "start": 0, "stop": 5},
            {"id": 1, "text": "b", "special": False, "start": 6, "stop": 7},
        ],
        [
            {"id": 0, "text": "[CLS]", "special": True, "start": None, "stop": None},
            {"id": 1, "text": "c", "special": False, "start": 0, "stop": 1},
        ],
    ]
    bare = await client.post("/tokenize", json={"inputs": "a b", "add_special_tokens": False})
    assert [token["id"] for token in bare.json()[0]] == [1, 1]


@pytest.mark.parametrize("field", ["content", "prompt", "messages"])
async def test_other_servers_bodies_are_refused_by_name(client, field):
    reply = await client.post("/tokenize", json={field: "a"})
    assert reply.status_code == 422
    assert f"`{field}`" in reply.json()["error"]
    assert "/v1/tokenize" in reply.json()["error"]


async def test_decode_takes_one_array_or_several(client):
    assert (await client.post("/decode", json={"ids": [2, 0, 3]})).json() == ["aa aaa"]
    assert (await client.post("/decode", json={"ids": [[1], [2]], "skip_special_tokens": False})).json() == ["a", "aa"]
    for wrong, status in (([], 400), ([[]], 400), ([[1], []], 400), ([1, [2]], 422), (["a"], 422), ([-1], 422), ("a", 422)):
        assert (await client.post("/decode", json={"ids": wrong})).status_code == status, wrong


async def test_our_own_endpoint_counts_tokens(client, embedder):
    reply = await client.post("/v1/tokenize", json={"model": "org/m", "input": ["a bb", "c"]})
    assert reply.json() == {
        "object": "list",
        "data": [
            {"object": "tokens", "index": 0, "tokens": [0, 1, 2], "count": 3},
            {"object": "tokens", "index": 1, "tokens": [0, 1], "count": 2},
        ],
        "model": "org/m",
        "max_tokens": 256,
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }
    assert reply.headers["openai-model"] == "org/m"
    options = {"add_special_tokens": False, "return_offsets": True}
    [entry] = (await client.post("/v1/tokenize", json={"model": "m", "input": "ü bb", **options})).json()["data"]
    assert (entry["tokens"], entry["offsets"]) == ([1, 2], [[0, 1], [2, 4]])
    assert not embedder.num_embedded


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"), ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": 5}, "input"), ({"input": [1.5]}, "input"),
        ({"input": "a", "add_special_tokens": 5}, "add_special_tokens"), ({"input": "a", "return_offsets": "x"}, "return_offsets"),
        ({"input": "a", "input_type": "none"}, "input_type"), ({"input": "a", "prompt_name": "none"}, "prompt_name"),
        ({"input": "a", "prompt_name": "query", "input_type": "query"}, "prompt_name"),
    ],
)  # fmt: skip
async def test_our_own_endpoint_refuses_in_openais_shape(client, body, param):
    reply = await client.post("/v1/tokenize", json={"model": "m", **body})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_a_tokenizer_elsewhere_is_refused_by_name(serve):
    class Elsewhere(FakeEmbedder):
        tokenize = None

    client = await serve(backends=[FakeBackend(m=Elsewhere())])
    reply = await client.post("/v1/tokenize", json={"model": "m", "input": "a"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")
    assert (await client.post("/tokenize", json={"inputs": "a"})).status_code == 422
