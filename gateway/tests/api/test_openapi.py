"""/openapi.json is true: real replies of every kind are held against it, and the requests it allows are accepted."""

import jsonschema
import pytest

from gateway.errors import Overloaded, Unembeddable
from gateway.tests.api.test_error_handler import BAD_REQUESTS


@pytest.fixture
async def document(stranger):
    return (await stranger.get("/openapi.json")).json()


def held(document, reply, path, method="post"):
    """Validates a reply as the document describes that status of that operation."""
    answer = document["paths"][path][method]["responses"][str(reply.status_code)]
    schema = {**answer["content"]["application/json"]["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(reply.json())
    assert reply.headers["content-type"] == "application/json"
    assert {name for name, header in answer.get("headers", {}).items() if header.get("required")} <= set(reply.headers)
    assert {name for name in reply.headers if name.startswith("x-ratelimit")} <= set(answer.get("headers", {}))


def allows(document, body):
    schema = document["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return jsonschema.Draft202012Validator(schema).is_valid(body)


def test_the_schemas_are_schemas(document):
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    "body",
    [
        {"input": "a"},
        {"input": ["a", "b"], "encoding_format": "base64", "dimensions": 3},
        {"input": [1, 2, 100276], "user": "u"},
        {"input": [[1], [2, 3]], "normalize": False, "long_input": "end", "input_type": "query"},
        {"input": "a", "encoding_format": None, "dimensions": None, "user": None, "normalize": None, "unknown": {"x": 1}},
    ],
)
async def test_success(document, client, body):
    body = {"model": "m", **body}
    assert allows(document, body)
    held(document, await client.post("/v1/embeddings", json=body), "/v1/embeddings")


@pytest.mark.parametrize("row", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
async def test_every_row_of_bad_requests(document, client, row):
    held(document, await client.post("/v1/embeddings", **row[0]), "/v1/embeddings")


@pytest.mark.parametrize(
    "name",
    [
        "no input", "no model", "null model", "wrong type", "mixed", "a boolean", "empty string", "empty list",
        "an id out of range", "too many", "an input too long", "no dimensions", "bad format",
    ],
)  # fmt: skip
def test_what_is_refused_for_its_shape_is_not_allowed_by_the_document(document, name):
    assert not allows(document, BAD_REQUESTS[name][0]["json"])


async def test_the_other_statuses(gateway, document, client, stranger, embedder):
    body = {"model": "m", "input": "a"}
    held(document, await stranger.post("/v1/embeddings", json=body), "/v1/embeddings")
    held(document, await stranger.post("/v1/embeddings", json=body, headers={"x": "y" * 40_000}), "/v1/embeddings")
    for error in (Overloaded(), Unembeddable("input"), RuntimeError()):
        embedder.raises = error
        held(document, await client.post("/v1/embeddings", json=body), "/v1/embeddings")
    held(document, await client.get("/v1/models"), "/v1/models", "get")
    held(document, await client.get("/v1/models/org/m"), "/v1/models/{model}", "get")
    held(document, await client.get("/v1/models/x"), "/v1/models/{model}", "get")
    held(document, await stranger.get("/v1/models"), "/v1/models", "get")
    held(document, await stranger.get("/readyz"), "/readyz", "get")
    held(document, await stranger.get("/livez"), "/livez", "get")
    gateway.drain()
    held(document, await stranger.get("/readyz"), "/readyz", "get")


async def test_limits_and_what_is_beyond_them(make, document, embedder):
    from gateway.config import LimitSettings
    from gateway.tests.api.conftest import KEY, client_of

    gateway = make(limits=LimitSettings(requests_per_minute=1, tokens_per_minute=60))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        replies = [await client.post("/v1/embeddings", json={"model": "m", "input": "a"}) for _ in range(2)]
    await gateway.close()
    assert [reply.status_code for reply in replies] == [200, 429]
    for reply in replies:
        held(document, reply, "/v1/embeddings")
        assert "x-ratelimit-reset-tokens" in reply.headers


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_pages_load_nothing_from_elsewhere(stranger, path):
    page = await stranger.get(path)
    assert page.status_code == 200
    assert "http" not in page.text
    for asset in [part.split('"')[0] for part in page.text.split('src="')[1:] + page.text.split('href="')[1:]]:
        reply = await stranger.get(asset)
        assert reply.status_code == 200
        assert len(reply.content) > 50
    assert (await stranger.get("/docs/assets/other.js")).json()["error"]["code"] == "unknown_url"


async def test_the_pages_can_be_turned_off(make):
    from gateway.config import ServerSettings
    from gateway.tests.api.conftest import client_of

    gateway = make(server=ServerSettings(docs=False))
    async with client_of(gateway) as client:
        assert [(await client.get(path)).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404] * 3
    await gateway.close()
