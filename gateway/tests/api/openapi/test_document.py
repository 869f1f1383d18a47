"""/openapi.json is true: every route of a running gateway is asked, and each reply and each header is held against it."""

import inspect
from typing import get_args

import httpx
import jsonschema
import pytest

from gateway import errors
from gateway.api import response_headers
from gateway.api.openapi.document import PARAMETER, served_operations
from gateway.app import Gateway
from gateway.config import (
    AdminSettings,
    AuthSettings,
    Config,
    FileSettings,
    LimitSettings,
    ModelRow,
    PageSettings,
    Secret,
    ServerSettings,
    StoreSettings,
)
from gateway.errors import GatewayError, MethodNotAllowed, UnknownURL
from gateway.testing.fakes import FakeBackend, FakeEmbedder, FakeReranker
from gateway.testing.gateway_thread import served
from gateway.tests.api.conftest import KEY, client_of
from gateway.tests.api.keys import add
from gateway.tests.api.openapi.schemas import hold, hold_response, operation_of
from gateway.tests.api.test_error_handler import BAD_REQUESTS

NOT_IN_OUR_SHAPE = {UnknownURL, MethodNotAllowed, errors.UnsupportedMediaType}  # TEI's alone, whose errors have no codes
ORIGIN = {"origin": "https://page.example"}
LEAVES = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, GatewayError) and not each.__subclasses__()
]


class Running:
    """A gateway on a socket, a client for each kind of key, and what was answered so far."""

    def __init__(self, gateway, embedder, address):
        self.gateway, self.embedder = gateway, embedder
        url = f"http://{address[0]}:{address[1]}"
        self.stranger = httpx.Client(base_url=url, headers=ORIGIN)
        self.client = httpx.Client(base_url=url, headers={**ORIGIN, "authorization": f"Bearer {KEY}"})
        admin, self.admin_id = add(gateway, is_admin=True, requests_per_minute=600, tokens_per_minute=60_000)
        self.admin = httpx.Client(base_url=url, headers={**ORIGIN, "authorization": f"Bearer {admin}"})
        self.document = self.stranger.get("/openapi.json").json()
        self.seen = set()

    def ask(self, client, method, path, **more):
        """The reply, which is as it is declared."""
        reply = client.request(method, path, **more)
        self.seen.add(hold(self.document, reply))
        return reply

    def embed(self, client=None, **body):
        return self.ask(client or self.client, "POST", "/v1/embeddings", json={"model": "m", "input": "a", **body})


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder, embedder = tmp_path_factory.mktemp("openapi"), FakeEmbedder()
    embedder.about = {"prompts": ("query",), "takes_instruction": True, "fidelity": 0.9999, "fallback": "bfloat16: too far off"}
    (folder / "key").write_text(KEY)
    config = Config(
        server=ServerSettings(
            port=0, cors_origins=(ORIGIN["origin"],), max_body_bytes=100_000, max_buffered_bytes=150_000, body_timeout_seconds=0.2
        ),
        auth=AuthSettings(keys=Secret(file=str(folder / "key"))),
        admin=AdminSettings(enabled=True),
        page=PageSettings(live="admin"),
        files=FileSettings(max_file_bytes=100_000, min_free_bytes=0),
        limits=LimitSettings(tokens_per_minute=1_000_000),
        store=StoreSettings(data_dir=str(folder / "data")),
        models=(
            ModelRow(name="m", aliases=("org/m",), backend="fake"),
            *(ModelRow(name=name, backend="fake") for name in ("r", "sparse", "multi")),
        ),
    )
    others = {name: FakeEmbedder(fingerprint=name) for name in ("sparse", "multi")}
    for name, kind in (("sparse", "sparse_encoder"), ("multi", "multi_vector_encoder")):
        others[name].about["kind"] = kind
    gateway = Gateway(config, backends=[FakeBackend(m=embedder, r=FakeReranker(), **others)])
    with served(gateway) as address:
        running = Running(gateway, embedder, address)
        yield running
        for client in (running.stranger, running.client, running.admin):
            client.close()


@pytest.fixture(autouse=True)
def well(running):
    yield
    running.embedder.raises = None


def test_it_is_sound_and_holds_no_reference_to_nothing(running):
    names = running.document["components"]["schemas"]
    for schema in names.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert set(references(running.document)) <= {f"#/components/schemas/{name}" for name in names}


def references(part):
    children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    yield from (part["$ref"],) if isinstance(part, dict) and "$ref" in part else ()
    for child in children:
        yield from references(child)


def test_every_route_is_declared_and_nothing_else(running):
    routes = running.gateway.generation.app.app.routes
    declared = {(method.upper(), path) for path, methods in running.document["paths"].items() for method in methods}
    assert declared == {
        (method, PARAMETER.sub(r"{\1}", path).replace("{public_id}", "{id}")) for path, method, *_ in served_operations(routes)
    }


def test_every_operation_is_asked(running):
    """Replies that are no errors, of every route."""
    running.embed()
    running.embed(input=["a", "b c"], encoding_format="base64", dimensions=3, input_type="query", user="u")
    running.embed(input=[[1], [2, 3]], normalize=False, long_input="end", instruction="Find it")
    cohere = {"model": "m", "texts": ["a b"], "input_type": "search_query"}
    running.ask(running.client, "POST", "/v1/embed", json=cohere)
    for path in ("/v1/embed", "/v2/embed"):
        running.ask(running.client, "POST", path, json={**cohere, "embedding_types": ["float", "base64"]})
        assert running.ask(running.client, "POST", path, json={}).status_code == 400
    body = {"model": "r", "query": "a", "documents": ["b", {"text": "c", "d": 5}], "return_documents": True}
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        running.ask(running.client, "POST", path, json=body)
    running.ask(running.client, "POST", "/rerank", json={"query": "a", "texts": ["b"], "return_text": True})
    for body, status in (({"texts": []}, 400), ({"texts": [5]}, 422), ({"truncation_direction": "Left", "texts": ["a"]}, 422)):
        assert running.ask(running.client, "POST", "/rerank", json={"query": "a", **body}).status_code == status
    for path, body in (
        ("/api/embed", {"input": ["a"]}), ("/api/embed", {}), ("/api/embeddings", {"prompt": "a"}), ("/api/show", {}),
    ):  # fmt: skip
        running.ask(running.client, "POST", path, json={"model": "m", **body})
    ask_tei(running)
    ask_files(running)
    ask_batches(running)
    for path in (
        "/v1/models",
        "/v1/models/m",
        "/v1/models/org/m",
        "/info",
        "/info?api-version=1",
        "/api/tags",
        "/api/ps",
        "/api/version",
    ):
        running.ask(running.client, "GET", path)
    for path in ("/", "/docs", "/redoc", "/openapi.json", "/livez", "/health", "/readyz", "/metrics", "/page/page.js"):
        running.ask(running.stranger, "GET", path)
    tag = running.stranger.get("/").headers["etag"]
    for path in ("/", "/page/page.js"):
        tag = running.stranger.get(path).headers["etag"]
        assert running.ask(running.stranger, "GET", path, headers={"if-none-match": tag}).status_code == 304
    running.ask(running.stranger, "GET", "/docs/assets/redoc.js")
    running.ask(running.admin, "GET", "/page/live?after=-1")
    made = running.ask(running.admin, "POST", "/admin/keys", json={"name": "n", "metadata": {"a": "b"}, "requests_per_minute": 5})
    place = f"/admin/keys/{made.json()['id']}"
    running.ask(running.admin, "PATCH", place, json={"token_budget": 5, "expires_at": "2099-01-01T00:00:00Z"})
    running.ask(running.admin, "POST", f"{place}/rotate", json={"grace": "1h"})
    running.ask(running.admin, "GET", place)
    running.ask(running.admin, "POST", f"{place}/revoke")
    running.ask(running.admin, "GET", "/admin/keys?limit=1")
    running.ask(running.admin, "GET", "/admin/usage?by=hour&since=1d&limit=5&offset=0")
    asked = {(method, path) for method, path, status in running.seen if status < 400} | {("POST", "/predict")}  # always refused
    assert asked == {(method.upper(), path) for path, methods in running.document["paths"].items() for method in methods}


def ask_files(running):
    """/v1/files, with what it answers and what it refuses."""
    parts = {"files": {"file": ("a.jsonl", b"{}")}, "data": {"purpose": "batch"}}
    file = running.ask(running.client, "POST", "/v1/files", **parts).json()
    for sent, status in (
        ({"files": parts["files"]}, 400), ({"json": {}}, 400), ({**parts, "data": {"purpose": "x"}}, 400),
        ({**parts, "headers": {"content-encoding": "gzip"}}, 415), ({**parts, "files": {"file": b"x" * 200_000}}, 413),
    ):  # fmt: skip
        assert running.ask(running.client, "POST", "/v1/files", **sent).status_code == status
    for query, status in (("", 200), ("?limit=1&order=asc&purpose=batch", 200), ("?order=up", 400), ("?after=x", 404)):
        assert running.ask(running.client, "GET", f"/v1/files{query}").status_code == status
    place = f"/v1/files/{file['id']}"
    for method, path in (("GET", place), ("GET", f"{place}/content"), ("DELETE", place)):
        assert running.ask(running.client, method, path).status_code == 200
        assert running.ask(running.admin, method, path).status_code == 404


def ask_batches(running):
    """/v1/batches, with what it answers and what it refuses."""
    parts = {"files": {"file": ("a.jsonl", b"{}")}, "data": {"purpose": "batch"}}
    body = {"input_file_id": running.ask(running.client, "POST", "/v1/files", **parts).json()["id"], "endpoint": "/v1/embeddings"}
    body |= {"completion_window": "24h", "output_expires_after": {"anchor": "created_at", "seconds": 3600}, "metadata": {"a": "b"}}
    batch, cancelled = {}, 409
    while cancelled == 409:  # it may have ended before
        batch = running.ask(running.client, "POST", "/v1/batches", json=body).json()
        cancelled = running.ask(running.client, "POST", f"/v1/batches/{batch['id']}/cancel").status_code
    for sent in ({"json": {}}, {"json": {**body, "endpoint": "/v1/x"}}, {"json": []}, {"content": b"{"}):
        assert running.ask(running.client, "POST", "/v1/batches", **sent).status_code == 400
    assert running.ask(running.client, "POST", "/v1/batches", content=b"x" * 70_000).status_code == 413
    for query, status in (("", 200), ("?limit=1", 200), ("?limit=0", 400), (f"?after={batch['id']}", 200), ("?after=x", 404)):
        assert running.ask(running.client, "GET", f"/v1/batches{query}").status_code == status
    place = f"/v1/batches/{batch['id']}"
    for method, path in (("GET", place), ("POST", f"{place}/cancel")):
        assert running.ask(running.client, method, path).status_code in {200, 409}
        assert running.ask(running.admin, method, path).status_code == 404


def ask_tei(running):
    """TEI's paths and /v1/tokenize, with what they answer and what they refuse."""
    similarity = {"inputs": {"source_sentence": "a", "sentences": ["b c"]}}
    for path, body, status in (
        ("/embed", {"inputs": ["a", "b c"], "dimensions": 3}, 200), ("/embed", {"inputs": ""}, 400), ("/embed", {"inputs": 5}, 422),
        ("/embed", {"inputs": "a", "dimensions": 0}, 422), ("/embed", {"inputs": "a", "truncation_direction": "Left"}, 422),
        ("/similarity", similarity, 200), ("/", {"inputs": "a"}, 200), ("/", similarity, 200),
        ("/invocations", {"inputs": "a"}, 200), ("/vertex", {"instances": [{"inputs": "a"}]}, 200),
        ("/embed_sparse", {"inputs": ["a", "b c"]}, 200), ("/embed_sparse", {"inputs": ""}, 400),
        ("/embed_all", {"inputs": ["a", "b c"]}, 200),
        ("/tokenize", {"inputs": "a b"}, 200), ("/tokenize", {"inputs": ""}, 400),
        ("/decode", {"ids": [1, 2]}, 200), ("/decode", {"ids": []}, 400), ("/predict", {"inputs": "a"}, 424),
        ("/v1/tokenize", {"model": "m", "input": ["a b", "c"], "return_offsets": True}, 200), ("/v1/tokenize", {"input": "a"}, 400),
        ("/v1/tokenize", {"model": "m", "text": "a b"}, 200), ("/v1/detokenize", {"model": "m", "tokens": [1, 2]}, 200),
        ("/v1/detokenize", {"model": "m", "tokens": [-1]}, 400),
    ):  # fmt: skip
        assert running.ask(running.client, "POST", path, json=body).status_code == status, (path, body)
    reply = running.ask(running.client, "POST", "/embed", content=b"{}", headers={"content-type": "text/plain"})
    assert reply.status_code == 415


@pytest.mark.parametrize("row", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_every_row_of_bad_requests(running, row):
    assert running.ask(running.client, "POST", "/v1/embeddings", **row[0]).status_code == row[1]


def made(error):
    """One of these errors, of any words."""
    parameters = inspect.signature(error.__init__).parameters.values()
    needed = [each for each in parameters if each.default is each.empty and each.name != "self"]
    first = {each.name: (*get_args(each.annotation), each.annotation)[0] for each in needed}
    values = {name: kind("1") if isinstance(kind, type) else kind for name, kind in first.items()}
    named = {each.name: values[each.name] for each in needed if each.kind is each.KEYWORD_ONLY}
    return error(*(values[each.name] for each in needed if each.kind is not each.KEYWORD_ONLY), **named)


def declares(response, code):
    schemas = [content["schema"] for content in response.get("content", {}).values()]
    narrowed = [each for schema in schemas for each in schema.get("anyOf", [schema]) if "allOf" in each]
    return any(code in each["allOf"][1]["properties"]["error"]["properties"]["code"]["enum"] for each in narrowed)


@pytest.mark.parametrize("error", [each for each in LEAVES if each not in NOT_IN_OUR_SHAPE])
def test_every_error_is_declared_with_its_headers(running, error):
    """Where an operation may end in it, it is answered as declared, whoever raises it."""
    operations = [each for methods in running.document["paths"].values() for each in methods.values()]
    assert [each for each in operations if declares(each["responses"].get(str(error.status), {}), error.code)]
    if declares(operation_of(running.document, "POST", "/v1/embeddings")[0]["responses"].get(str(error.status), {}), error.code):
        running.embedder.raises = made(error)
        reply = running.embed(input=f"text for {error.__name__}")
        assert (reply.status_code, reply.json()["error"]["code"]) == (error.status, error.code)


def test_a_fault_of_ours(running):
    running.embedder.raises = RuntimeError()
    assert running.embed(input="fault").status_code == 500


def test_an_upstream_that_may_come_back(running):
    running.embedder.raises = errors.UpstreamError("m", "is silent", may_help=True)
    assert running.embed(input="upstream").headers["x-should-retry"] == "true"


@pytest.mark.parametrize(("error", "path"), [(UnknownURL, "/nowhere"), (MethodNotAllowed, "/v1/embeddings")])
def test_what_is_nowhere_is_declared_too(running, error, path):
    reply = running.client.get(path)
    assert reply.status_code == error.status
    hold_response(running.document, reply, running.document["components"]["responses"][error.__name__])


def test_no_key_a_wrong_one_and_one_without_the_scope(running):
    for path, methods in running.document["paths"].items():
        for method, operation in methods.items():
            url = (
                path.replace("{id}", "x")
                .replace("{model}", "m")
                .replace("{name}", "x")
                .replace("{file_id}", "x")
                .replace("{batch_id}", "x")
            )
            needs_key = operation.get("security") != []
            assert needs_key == ("401" in operation["responses"])
            reply = running.ask(running.stranger, method.upper(), url)
            assert (reply.status_code == 401) == needs_key, path
            if "403" in operation["responses"]:
                assert running.ask(running.client, method.upper(), url).status_code == 403
            if needs_key:
                running.ask(running.stranger, method.upper(), url, headers={"api-key": "k" * 30})
                assert running.ask(running.stranger, method.upper(), f"{url}?api_key=x").status_code == 401


def test_headers_that_are_too_large_and_a_key_with_limits(running):
    for client, path in ((running.client, "/v1/models"), (running.stranger, "/livez"), (running.stranger, "/")):
        assert running.ask(client, "GET", path, headers={"x-large": "y" * 40_000}).status_code == 431
    limited, _ = add(running.gateway, requests_per_minute=1, requests_burst=1)
    for status in (200, 429):
        body = {"model": "m", "input": "a"}
        reply = running.ask(running.stranger, "POST", "/v1/embeddings", json=body, headers={"api-key": limited})
        assert reply.status_code == status
        assert reply.headers["x-ratelimit-limit-requests"] == "1"


def test_what_admins_send_wrong(running):
    place = f"/admin/keys/{running.admin_id}"
    for method, path, sent, status in (
        ("POST", "/admin/keys", b"{", 400),
        ("POST", "/admin/keys", b"[]", 400),
        ("PATCH", place, b'{"models": []}', 400),
        ("POST", f"{place}/rotate", b'{"grace": 5}', 400),
        ("POST", "/admin/keys", b" " * 70_000, 413),
        ("GET", "/admin/keys/none", b"", 404),
        ("GET", "/admin/keys?after=none", b"", 404),
        ("GET", "/admin/keys?limit=0", b"", 400),
        ("GET", "/admin/usage?by=year", b"", 400),
    ):
        assert running.ask(running.admin, method, path, content=sent).status_code == status


def test_a_page_of_another_origin_may_read_what_is_for_it(running):
    exposed = running.embed().headers["access-control-expose-headers"].split(", ")
    assert exposed == [header.name for header in response_headers.EVERY if header.is_readable]
    assert {"x-request-id", "retry-after", "x-should-retry", "x-gateway-fingerprint", "x-ratelimit-reset-tokens"} <= set(exposed)


async def test_probes_that_say_no(make):
    gateway = make()
    await gateway.start()
    async with client_of(gateway) as client:
        document = (await client.get("/openapi.json")).json()
        assert hold(document, await client.get("/readyz"))[2] == 503
        await gateway.load()
        assert hold(document, await client.get("/readyz"))[2] == 200
        gateway.drain()
        assert hold(document, await client.get("/readyz"))[2] == 503
    await gateway.close()


async def test_without_keys_nothing_speaks_of_keys(make):
    gateway = make(auth=AuthSettings(mode="none"))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway) as client:
        document = (await client.get("/openapi.json")).json()
        assert hold(document, await client.post("/v1/embeddings", json={"model": "m", "input": "a"}))[2] == 200
    await gateway.close()
    assert "security" not in document
    assert "securitySchemes" not in document["components"]
    responses = [
        response for methods in document["paths"].values() for each in methods.values() for response in [each["responses"]]
    ]
    assert not [each for each in responses if "401" in each]
    assert not [each for each in responses if declares(each.get("503", {}), errors.StoreUnavailable.code)]
