"""Two fronts answer as one process does: the same status, names of headers and body for the same requests, in the same order.

Both have the same models and the same keys, in a store that both opened; requests go to the two fronts in turn.
"""

import gzip
import itertools
import json
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from gateway.access.database import Database
from gateway.access.keys.key import new_key
from gateway.access.keys.policy import policy_of
from gateway.access.keys.store import KeyStore
from gateway.app import Gateway
from gateway.config import (
    AdminSettings,
    AuthSettings,
    Config,
    EngineSettings,
    LimitSettings,
    ModelRow,
    ServerSettings,
    StoreSettings,
)
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.testing.fronts_thread import served_by_fronts
from gateway.testing.gateway_thread import served
from gateway.tests.api.faulty import NAN, FaultyBackend, HeldEncoder
from gateway.tests.processes.conftest import until

POLICIES = {
    "free": {},
    "admin": {"is_admin": True},
    "narrow": {"models": ["fake"]},
    "few": {"requests_per_minute": 6, "requests_burst": 2},
    "little": {"tokens_per_minute": 60, "tokens_burst": 30},
    "both": {"requests_per_minute": 600, "tokens_per_minute": 6000, "max_concurrent_requests": 4},
    "five": {"requests_per_minute": 1, "requests_burst": 5},
    "forty": {"requests_per_minute": 1, "requests_burst": 40, "tokens_per_minute": 6000},
    "revoked": {},
    "used": {},
    "budget": {"token_budget": 5, "budget_period": "month"},
}
VARIABLE = {  # their values differ from moment to moment; not their names
    "x-request-id", "date", "server-timing", "openai-processing-ms", "content-length", "retry-after", "x-compute-time",
    "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time",
}  # fmt: skip
OF_THIS_START = ("id", "total_duration", "load_duration", "created", "created_at", "expires_at")
UPLOAD = (
    b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    b'{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "local", "input": "1"}}\r\n--b--\r\n'
)
LIMITS = re.compile(r"x-ratelimit-(limit|burst)-")


class Pair:
    """`one` is a client of one process, `two` clients of two fronts."""

    def __init__(self, keys, one, two, folder):
        self.keys = keys
        self.folder = folder
        self.fronts = two
        self.one = one
        self.two = itertools.cycle(two)

    def ask(self, client, key, method, path, *, headers=(), **content):
        sent = dict(headers)
        if key is not None:
            sent["authorization"] = f"Bearer {self.keys.get(key, key)}"
        return client.request(method, path, headers=sent, **content)

    def both(self, *request, **content):
        return self.ask(self.one, *request, **content), self.ask(next(self.two), *request, **content)


def gateway_of(folder):
    reranker = FakeEmbedder(dimensions=1)
    reranker.about = {"kind": "reranker"}
    config = Config(
        server=ServerSettings(port=0, max_body_bytes=200_000, drain_delay_seconds=0),
        auth=AuthSettings(),
        admin=AdminSettings(enabled=True),
        limits=LimitSettings(max_request_tokens=100, max_input_tokens=60),
        engine=EngineSettings(warmup_seconds=0),
        store=StoreSettings(data_dir=str(folder)),
        models=(
            ModelRow(name="local", aliases=("org/local", "text-embedding-3-small"), backend="faulty", settings={"source": "none"}),
            ModelRow(name="fake", backend="fake"),
            ModelRow(name="ranker", backend="fake"),
            ModelRow(name="broken", backend="fake", load="first_use"),
        ),
    )
    backends = [
        FakeBackend(fake=FakeEmbedder(), ranker=reranker, broken=FakeEmbedder(fails_with="no")),
        FaultyBackend([HeldEncoder()]),
    ]
    return Gateway(config, backends=backends)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    stores = [KeyStore(Database(StoreSettings(data_dir=str(folder)))) for folder in folders]
    for store in stores:
        store.open()
    keys = {}
    for name, policy in POLICIES.items():
        keys[name], key = new_key(name)
        for store in stores:
            store.add(key, policy_of(policy), by="cli:somebody")
    for store in stores:
        store.close()
    with served(gateway_of(folders[0])) as (host, port), served_by_fronts(gateway_of(folders[1])) as origins:
        clients = [httpx.Client(base_url=url, timeout=30) for url in (f"http://{host}:{port}", *origins)]
        yield Pair(keys, clients[0], clients[1:], folders[1])
        for client in clients:
            client.close()


def shown(reply):
    """What both must have the same: the values of headers too, but for those of this moment."""
    headers = {
        name: "" if name in VARIABLE or (name.startswith("x-ratelimit") and not LIMITS.match(name)) else value
        for name, value in reply.headers.items()
    }
    body = reply.text
    if "json" in reply.headers.get("content-type", "") and body:
        content = json.loads(body)
        if isinstance(content, dict):
            for name in OF_THIS_START:
                content.pop(name, None)
        body = re.sub(r"req_[0-9a-f]{32}|try again in [0-9.ms]+|remaining \d+", "…", json.dumps(content))
    return reply.status_code, headers, body


def post(body, path="/v1/embeddings", key="free", **headers):
    return key, "POST", path, body, headers


def embeddings(**fields):
    return post({"model": "local", "input": "1 2 3", **fields})


CASES = {
    "one text": embeddings(),
    "again, cached": embeddings(),
    "a batch": embeddings(input=["1", "2 3", "4 5 6"]),
    "repetitions": embeddings(input=["7", "8", "7", "7", "8"]),
    "repetitions, cached in part": embeddings(input=["9", "7", "9"]),
    "base64": embeddings(encoding_format="base64"),
    "dimensions": embeddings(dimensions=2),
    "too many dimensions": embeddings(dimensions=5),
    "token array": embeddings(input=[16, 220, 17]),
    "token arrays": embeddings(input=[[16, 220, 17], [18]]),
    "an id that is none": embeddings(input=[100256]),
    "nulls": embeddings(dimensions=None, encoding_format=None, user=None),
    "an alias": embeddings(model="org/local"),
    "long, in windows": embeddings(input=" ".join(map(str, range(40)))),
    "long, cut": embeddings(input=" ".join(map(str, range(40))), long_input="end"),
    "long, refused": embeddings(input=["1", " ".join(map(str, range(40)))], long_input="error"),
    "too long": embeddings(input=["1", " ".join(map(str, range(61)))]),
    "too many tokens": embeddings(input=[" ".join(map(str, range(start, start + 50))) for start in (100, 200, 300)]),
    "too many tokens by repetition": embeddings(input=[" ".join(map(str, range(400, 440)))] * 3),
    "too many characters": embeddings(input="1 " * 50_000),
    "no vector": embeddings(input=["1", "1", NAN]),
    "no vector, alone": embeddings(input=NAN),
    "not normalized": embeddings(normalize=False),
    "uint8 without ranges": embeddings(output_dtype="uint8"),
    "binary": embeddings(output_dtype="binary"),
    "input_type that is none": embeddings(input_type="nonesuch"),
    "instruction that is not taken": embeddings(instruction="find"),
    "empty text": embeddings(input=""),
    "empty array": embeddings(input=[]),
    "mixed": embeddings(input=["a", 1]),
    "too many inputs": embeddings(input=["1"] * 2049),
    "bad format": embeddings(encoding_format="hex"),
    "no input": post({"model": "local"}),
    "no model": post({"input": "1"}),
    "unknown model": embeddings(model="nonesuch"),
    "a model of another kind": embeddings(model="ranker"),
    "a model that cannot be loaded": embeddings(model="broken"),
    "not JSON": post(b"{"),
    "not UTF-8": post(b'{"model": "\xff"}'),
    "too deep": post(b"[" * 5000),
    "body too large": post(b" " * 200_001),
    "gzip": post(gzip.compress(b'{"model": "local", "input": "1 2"}'), **{"content-encoding": "gzip"}),
    "gzip, broken": post(b"no gzip", **{"content-encoding": "gzip"}),
    "brotli": post(b"x", **{"content-encoding": "br"}),
    "fake: one text": embeddings(model="fake"),
    "fake: repetitions": embeddings(model="fake", input=["a b", "c", "a b"]),
    "fake: again, cached": embeddings(model="fake", input=["c", "a b"]),
    "azure": post({"input": "1"}, "/openai/deployments/local/embeddings?api-version=1"),
    "doubled slashes": post({"model": "local", "input": "1"}, "//v1//embeddings/"),
    "no key": post({"model": "local", "input": "1"}, key=None),
    "wrong key": post({"model": "local", "input": "1"}, key="sk-gw-wrong-" + "x" * 43),
    "key in query": post({"model": "local", "input": "1"}, "/v1/embeddings?api_key=x"),
    "two keys": post({"model": "local", "input": "1"}, **{"api-key": "another"}),
    "a model that the key may not use": post({"model": "local", "input": "1"}, key="narrow"),
    "a model that it may use": post({"model": "fake", "input": "1"}, key="narrow"),
    "limits in headers": post({"model": "local", "input": "1 2"}, key="both"),
    "limits in headers of an error": post({"model": "local", "input": ""}, key="both"),
    "limits in headers, fake": post({"model": "fake", "input": "1 2"}, key="both"),
    "requests: first": post({"model": "local", "input": "1"}, key="few"),
    "requests: second": post({"model": "local", "input": "1"}, key="few"),
    "requests: third": post({"model": "local", "input": "1"}, key="few"),
    "tokens: first": post({"model": "local", "input": "501 502 503 504 505 506 507 508 509 510"}, key="little"),
    "tokens: second": post({"model": "fake", "input": "601 602 603 604 605 606 607 608 609 610"}, key="little"),
    "tokens: third": post({"model": "local", "input": " ".join(map(str, range(600, 615)))}, key="little"),
    "tokens: third, fake": post({"model": "fake", "input": " ".join(map(str, range(600, 615)))}, key="little"),
    "tokens: never": post({"model": "local", "input": " ".join(map(str, range(600, 645)))}, key="little"),
    "budget: first": post({"model": "local", "input": "1 2 3 4 5"}, key="budget"),
    "budget: second": post({"model": "local", "input": "1"}, key="budget"),
    "tokenize": post({"model": "local", "input": ["1 2", "3"]}, "/v1/tokenize"),
    "tokenize, fake": post({"model": "fake", "input": ["a bb"]}, "/v1/tokenize"),
    "tokenize, with offsets": post({"model": "local", "input": "1 2", "return_offsets": True}, "/v1/tokenize"),
    "tokenize, too long": post({"model": "local", "input": " ".join(map(str, range(61)))}, "/v1/tokenize"),
    "rerank": post({"model": "ranker", "query": "q", "documents": ["a", "b c", "a"]}, "/v1/rerank"),
    "rerank, default model": post({"query": "q", "documents": ["a"]}, "/v2/rerank"),
    "rerank by an embedder": post({"model": "local", "query": "q", "documents": ["a"]}, "/v1/rerank"),
    "rerank without documents": post({"model": "ranker", "query": "q"}, "/v1/rerank"),
    "TEI embed": post({"inputs": ["1", "2 3"]}, "/tei/local/embed"),
    "TEI embed, truncated": post({"inputs": " ".join(map(str, range(40))), "truncate": True}, "/tei/local/embed"),
    "TEI embed, too long": post({"inputs": " ".join(map(str, range(40)))}, "/tei/local/embed"),
    "TEI similarity": post({"inputs": {"source_sentence": "1", "sentences": ["2", "1"]}}, "/tei/local/similarity"),
    "TEI rerank": post({"query": "q", "texts": ["a", "b"]}, "/tei/ranker/rerank"),
    "TEI tokenize": post({"inputs": "1 2"}, "/tei/local/tokenize"),
    "TEI decode": post({"ids": [5, 6]}, "/tei/local/decode"),
    "TEI info": ("free", "GET", "/tei/local/info", None, {}),
    "TEI of a form": post(b"inputs=1", "/tei/local/embed", **{"content-type": "application/x-www-form-urlencoded"}),
    "TEI error": post({"inputs": []}, "/tei/local/embed"),
    "Ollama embed": post({"model": "local", "input": ["1", "2"]}, "/api/embed"),
    "Ollama embeddings": post({"model": "local", "prompt": "1"}, "/api/embeddings"),
    "Ollama show": post({"model": "local"}, "/api/show"),
    "Ollama show of none": post({"model": "nonesuch"}, "/api/show"),
    "Ollama version": ("free", "GET", "/api/version", None, {}),
    "Ollama error": post({"model": "nonesuch", "input": "1"}, "/api/embed"),
    "Cohere embed": post(
        {"model": "local", "texts": ["1", "2"], "input_type": "search_document", "embedding_types": ["float", "base64"]},
        "/v2/embed",
    ),
    "Cohere error": post({"model": "local", "texts": [], "input_type": "search_document"}, "/v2/embed"),
    "models": ("free", "GET", "/v1/models", None, {}),
    "models of a narrow key": ("narrow", "GET", "/v1/models", None, {}),
    "a model": ("free", "GET", "/v1/models/org%2Flocal", None, {}),
    "no such model": ("free", "GET", "/models/nonesuch", None, {}),
    "models without a key": (None, "GET", "/v1/models", None, {}),
    "unknown path": ("free", "POST", "/v1/foo", {"a": 1}, {}),
    "wrong method": ("free", "GET", "/v1/embeddings", None, {}),
    "another wrong method": ("free", "DELETE", "/v1/models", None, {}),
    "options": (None, "OPTIONS", "/v1/embeddings", None, {}),
    "head": ("free", "HEAD", "/v1/models", None, {}),
    "livez": (None, "GET", "/livez", None, {}),
    "readyz": (None, "GET", "/readyz", None, {}),
    "admin without the scope": ("free", "GET", "/admin/keys", None, {}),
    "admin": ("admin", "GET", "/admin/usage", None, {}),
    "admin: make a wrong key": post({"name": 5}, "/admin/keys", key="admin"),
    "the page": (None, "GET", "/", None, {}),
    "the docs": (None, "GET", "/docs", None, {}),
    "the description": (None, "GET", "/openapi.json", None, {}),
    "upload a file": post(UPLOAD, "/v1/files", **{"content-type": "multipart/form-data; boundary=b"}),
    "upload no file": post(b"--b--", "/v1/files", **{"content-type": "multipart/form-data; boundary=b"}),
    "upload without a key": post(UPLOAD * 400, "/v1/files", key=None, **{"content-type": "multipart/form-data; boundary=b"}),
    "no such file": ("free", "GET", "/v1/files/file-none", None, {}),
    "a client's own id": post({"model": "local", "input": "1"}, **{"x-request-id": "mine-1"}),
    "headers too large": post({"model": "local", "input": "1"}, **{"x-more": "x" * 70_000}),
    "connection: close": post({"model": "local", "input": "1"}, connection="close"),
}


@pytest.mark.parametrize("name", CASES)
def test_two_fronts_answer_as_one_process(pair, name):
    key, method, path, body, headers = CASES[name]
    content = {} if body is None else {"content": body} if isinstance(body, bytes) else {"json": body}
    one, two = pair.both(key, method, path, headers=headers, **content)
    assert shown(two) == shown(one)


def test_a_limit_is_exact_over_two_fronts(pair):
    asked = {"model": "local", "input": "1"}
    with ThreadPoolExecutor(8) as pool:
        replies = pool.map(lambda client: pair.ask(client, "five", "POST", "/v1/embeddings", json=asked), [*pair.fronts] * 8)
        assert sorted(reply.status_code for reply in replies) == [200] * 5 + [429] * 11


def test_a_limit_is_exact_also_while_calls_enter_their_leases_themselves(pair):
    """Of the first twenty requests most do, of the others none: then less than half of the burst is left."""

    def ask(number):
        asked = {"model": "local", "input": str(700 + number)}
        return pair.ask(pair.fronts[number % 2], "forty", "POST", "/v1/embeddings", json=asked)

    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(ask, range(60)))
    assert sorted(reply.status_code for reply in replies) == [200] * 40 + [429] * 20
    refused = [reply for reply in replies if reply.status_code == 429]
    assert {reply.headers["x-ratelimit-remaining-requests"] for reply in refused} == {"0"}


def test_a_revoked_key_stops_working_at_both_fronts(pair):
    asked = {"model": "local", "input": "1"}

    def statuses():
        return [pair.ask(client, "revoked", "POST", "/v1/embeddings", json=asked).status_code for client in pair.fronts]

    assert statuses() == [200, 200]
    store = KeyStore(Database(StoreSettings(data_dir=str(pair.folder))))
    store.open()
    store.revoke("revoked", by="cli:somebody")
    store.close()
    until(lambda: statuses() == [401, 401], 20)


def test_the_use_of_both_fronts_is_one_keys(pair):
    for client in pair.fronts:
        pair.ask(client, "used", "POST", "/v1/embeddings", json={"model": "local", "input": ["901 902", "903"]})

    def num_tokens():
        rows = pair.ask(pair.fronts[0], "admin", "GET", "/admin/usage").json()["data"]
        return sum(row["tokens"] for row in rows if row["key"] == "used")

    until(lambda: num_tokens() >= 6, 20)
    assert num_tokens() == 6
