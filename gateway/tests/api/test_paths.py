"""Every path clients send, to the one route that answers it; HEAD, OPTIONS, CORS, gzip, and requests that name no model."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.paths import RequestTarget, target_of
from gateway.config import AdminSettings, ServerSettings
from gateway.errors import ConfigurationError
from gateway.tests.api.conftest import KEY, client_of

BODY = {"model": "m", "input": "hello world"}
ORIGIN = "https://app.example"


@pytest.mark.parametrize(
    ("sent", "path", "model"),
    [
        ("/v1/embeddings", "/v1/embeddings", None),
        ("/v1/embeddings/", "/v1/embeddings", None),
        ("/v1//embeddings", "/v1/embeddings", None),
        ("//embeddings", "/v1/embeddings", None),
        ("/embeddings", "/v1/embeddings", None),
        ("/v1/v1/embeddings", "/v1/embeddings", None),
        ("/v1/v1/models", "/v1/models", None),
        ("/v1/v2/embed", "/v2/embed", None),
        ("/v1/v1/v2/rerank/", "/v2/rerank", None),
        ("/v2/v2/embed", "/v2/embed", None),
        ("/reranking", "/rerank", None),
        ("/v1/v1/reranking/", "/v1/rerank", None),
        ("/v2/reranking", "/v2/reranking", None),
        ("/v2/v1/embed", "/v2/v1/embed", None),
        ("/models", "/v1/models", None),
        ("/models/org/m", "/v1/models/org/m", None),
        ("/models/embeddings", "/v1/embeddings", None),
        ("/models/embeddings/", "/v1/embeddings", None),
        ("/models//info", "/info", None),
        ("/v1/info", "/info", None),
        ("/info", "/info", None),
        ("/openai/models", "/v1/models", None),
        ("/openai/v1/embeddings", "/v1/embeddings", None),
        ("/openai/deployments/m/embeddings", "/v1/embeddings", "m"),
        ("/openai/deployments/org/m/embeddings/", "/v1/embeddings", "org/m"),
        ("//openai//deployments/m/embeddings", "/v1/embeddings", "m"),
        ("/tei/m/embed", "/embed", "m"),
        ("/tei/org/m/embed/", "/embed", "org/m"),
        ("//tei//org/m", "/invocations", "org/m"),
        ("/tei/m/v1/embeddings", "/v1/embeddings", "m"),
        ("/tei/m/embeddings", "/v1/embeddings", "m"),
        ("/tei/m/info", "/info", "m"),
        ("/tei/m/rerank", "/rerank", "m"),
        ("/tei", "/tei", None),
        ("/", "/", None),
        ("/livez/", "/livez", None),
        ("/v1", "/v1", None),
        ("/v1/files", "/v1/files", None),
        ("/embeddingsx", "/embeddingsx", None),
        ("/openai/deployments/embeddings", "/openai/deployments/embeddings", None),
    ],
)
def test_paths_as_clients_send_them(sent, path, model):
    assert target_of(sent) == RequestTarget(path, model, is_tei="tei/" in sent)


@given(st.text(alphabet="/v1embdingsopa.{}%é ", max_size=40))
def test_a_normal_path_stays_as_it_is(sent):
    once = target_of("/" + sent)
    assert once.model is not None or target_of(once.path) == once
    assert once.path.startswith("/")


def test_the_path_of_a_door_is_its_own_route(make):
    edge = make().generation.app
    assert "/v1/embeddings" in edge.doors
    assert all(edge.target_of(path) == target_of(path) == RequestTarget(path) for path in edge.doors)


@pytest.mark.parametrize("path", ["/embeddings", "http://gateway//embeddings", "/v1/embeddings/", "/v1/v1/embeddings"])
async def test_each_path_variant_embeds(client, path):
    reply = await client.post(path, json=BODY)
    assert reply.status_code == 200
    assert reply.json() == (await client.post("/v1/embeddings", json=BODY)).json()


@pytest.mark.parametrize("name", ["m", "org/m", "org%2Fm"])
async def test_azure_names_the_model_in_its_path(stranger, name):
    path = f"/openai/deployments/{name}/embeddings?api-version=2024-10-21"
    for body in ({"input": "hello world"}, {"input": "hello world", "model": "something-else"}):
        reply = await stranger.post(path, json=body, headers={"api-key": KEY})
        assert reply.status_code == 200
        assert reply.json()["model"] == name.replace("%2F", "/")


async def test_azures_list_of_models_is_the_list_of_models(client):
    assert (await client.get("/openai/models?api-version=2024-10-21")).json() == (await client.get("/v1/models")).json()


async def test_an_error_names_the_path_that_was_sent(client):
    assert "Invalid URL (POST //openai//nowhere/)" in (await client.post("http://gateway//openai//nowhere/")).text
    assert "Not allowed to GET on /embeddings/." in (await client.get("/embeddings/")).text


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/m", "/livez", "/metrics", "/openapi.json"])
async def test_head_is_get_without_a_body(client, path):
    head, get = await client.head(path), await client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    assert int(head.headers["content-length"]) > 0


async def test_head_where_there_is_no_get_is_405_by_its_own_name(client):
    reply = await client.head("/v1/embeddings")
    assert reply.status_code == 405
    assert reply.content == b""
    assert "POST" in reply.headers["allow"]


async def test_a_405_allows_head_where_get_is(client):
    reply = await client.put("/v1/models")
    assert {"GET", "HEAD"} <= set(reply.headers["allow"].split(", "))


async def test_options_says_what_a_path_can_do(stranger):
    reply = await stranger.options("/v1/embeddings")
    assert reply.status_code == 204
    assert reply.headers["allow"] == "OPTIONS, POST"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/models", "GET, HEAD, OPTIONS"), ("/v1/models/m", "GET, HEAD, OPTIONS"), ("/livez", "GET, HEAD, OPTIONS"),
        ("/openai/deployments/m/embeddings", "OPTIONS, POST"), ("/admin/keys", "GET, HEAD, OPTIONS, POST"),
        ("/admin/keys/x", "GET, HEAD, OPTIONS, PATCH"),
    ],
)  # fmt: skip
async def test_options_and_a_405_forget_no_method(make, path, methods):
    gateway = make(admin=AdminSettings(enabled=True))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        assert (await client.options(path)).headers["allow"] == methods
        refused = await client.delete(path)
        assert (refused.status_code, sorted(refused.headers["allow"].split(", "))) == (405, methods.split(", "))
    await gateway.close()


async def test_without_origins_nothing_is_said_to_browsers(client):
    reply = await client.post("/v1/embeddings", json=BODY, headers={"origin": ORIGIN})
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.fixture
async def open_client(make):
    gateway = make(server=ServerSettings(cors_origins=(ORIGIN,), default_model="org/m"))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        yield client
    await gateway.close()


async def test_a_preflight_allows_the_headers_the_sdk_asks_for(open_client):
    asked = "authorization, content-type, x-stainless-lang, x-stainless-retry-count"
    headers = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": asked}
    del open_client.headers["authorization"]
    reply = await open_client.options("/v1/embeddings", headers=headers)
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert reply.headers["access-control-allow-headers"] == asked
    assert {"GET", "HEAD", "POST", "PATCH"} <= set(reply.headers["access-control-allow-methods"].split(", "))


@pytest.mark.parametrize(("path", "status"), [("/v1/embeddings", 200), ("/v1/nowhere", 404)])
async def test_a_page_may_read_replies_and_errors(open_client, path, status):
    reply = await open_client.post(path, json=BODY, headers={"origin": ORIGIN})
    assert reply.status_code == status
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert "x-request-id" in reply.headers["access-control-expose-headers"]
    assert reply.headers["vary"] == "origin"


async def test_another_origin_may_not(open_client):
    reply = await open_client.post("/v1/embeddings", json=BODY, headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in reply.headers


async def test_every_origin_may_where_the_configuration_says_so(make):
    gateway = make(server=ServerSettings(cors_origins=("*",)))
    await gateway.start()
    async with client_of(gateway) as client:
        reply = await client.get("/readyz", headers={"origin": "https://any.example"})
    assert reply.headers["access-control-allow-origin"] == "*"
    await gateway.close()


@pytest.mark.parametrize("body", [{"input": "a"}, {"input": "a", "model": None}, {"input": "a", "model": ""}])
async def test_the_default_model_serves_clients_that_name_none(open_client, body):
    reply = await open_client.post("/v1/embeddings", json=body)
    assert reply.status_code == 200
    assert reply.json()["model"] == "org/m"


def test_a_default_model_that_does_not_exist_is_refused(make):
    with pytest.raises(ConfigurationError, match=r"server\.default_model.*'other'"):
        make(server=ServerSettings(default_model="other"))


async def test_a_gzip_body_is_unpacked(client):
    packed = gzip.compress(json.dumps(BODY).encode()) + gzip.compress(b"   ")  # members may follow each other
    reply = await client.post("/v1/embeddings", content=packed, headers={"content-encoding": "gzip"})
    assert reply.json() == (await client.post("/v1/embeddings", json=BODY)).json()


@pytest.mark.parametrize(
    ("content", "encoding", "status", "code"),
    [
        (gzip.compress(b" " * 100_001), "gzip", 413, "request_too_large"),
        (gzip.compress(b" " * 50_000_000), "gzip", 413, "request_too_large"),
        (gzip.compress(b'{"model"')[:-9], "gzip", 400, "invalid_json"),
        (b"not gzip", "gzip", 400, "invalid_json"),
        (b"", "gzip", 400, "invalid_json"),
        (b"{}", "br", 415, "unsupported_encoding"),
    ],
    ids=["too large", "a bomb", "cut short", "no gzip", "nothing", "another encoding"],
)
async def test_a_packed_body_that_is_wrong(gateway, client, content, encoding, status, code):
    reply = await client.post("/v1/embeddings", content=content, headers={"content-encoding": encoding})
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert gateway.admission.num_bytes == 0
