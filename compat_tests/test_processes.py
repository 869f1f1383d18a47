"""A gateway of three processes, `server.workers = 2`, beside the one of one process: clients cannot tell them apart."""

import base64
import concurrent.futures
import gzip
import json
import os
import re
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.curl import Answer, Curl
from compat_tests.process import Gateway
from compat_tests.texts import MARKER, MODEL, SAMPLES
from compat_tests.truth import Truth, assert_close

LONG = "a quick text that is longer than the model reads. " * 60
OF_THIS_MOMENT = {
    "date", "x-request-id", "server-timing", "openai-processing-ms", "x-total-time", "x-tokenization-time", "x-queue-time",
    "x-inference-time", "x-compute-time",
}  # fmt: skip
OF_THIS_ANSWER = {"id", "total_duration", "load_duration"}
BASE64 = re.compile(r"[A-Za-z0-9+/]+=*")
MIN_BASE64_CHARS = 60
REQUESTS: dict[str, tuple[str, object]] = {
    "a text": ("/v1/embeddings", {"model": MODEL, "input": "a text"}),
    "texts": ("/v1/embeddings", {"model": MODEL, "input": [*SAMPLES.values(), "a text", "a text"], "encoding_format": "base64"}),
    "many texts": ("/v1/embeddings", {"model": MODEL, "input": [f"text {n}" for n in range(300)], "dimensions": 16}),
    "token ids": ("/v1/embeddings", {"model": MODEL, "input": [[15339, 1917], [9906]]}),
    "a long text": ("/v1/embeddings", {"model": MODEL, "input": LONG}),
    "a long text, cut": ("/v1/embeddings", {"model": MODEL, "input": LONG, "long_input": "end"}),
    "a long text, refused": ("/v1/embeddings", {"model": MODEL, "input": ["a", LONG], "long_input": "error"}),
    "too many dimensions": ("/v1/embeddings", {"model": MODEL, "input": "a", "dimensions": 385}),
    "an empty text": ("/v1/embeddings", {"model": MODEL, "input": ["a", ""]}),
    "no model": ("/v1/embeddings", {"input": "a"}),
    "no such model": ("/v1/embeddings", {"model": "nonesuch", "input": "a"}),
    "no JSON": ("/v1/embeddings", b"{"),
    "bytes": ("/v1/embeddings", {"model": MODEL, "input": "a", "output_dtype": "binary"}),
    "Azure": ("/openai/deployments/all-MiniLM-L6-v2/embeddings?api-version=2024-02-01", {"input": "a"}),
    "Cohere": ("/v2/embed", {"model": MODEL, "texts": ["a", "b"], "input_type": "search_query", "embedding_types": ["float"]}),
    "Ollama": ("/api/embed", {"model": MODEL, "input": ["a", "b"], "truncate": True}),
    "TEI": (f"/tei/{MODEL}/embed", {"inputs": ["a", "b"]}),
    "TEI, too long": (f"/tei/{MODEL}/embed", {"inputs": LONG}),
    "tokens": ("/v1/tokenize", {"model": MODEL, "input": ["some words", "unbelievable"], "return_offsets": True}),
    "rerank by no reranker": ("/v1/rerank", {"model": MODEL, "query": "a", "documents": ["b"]}),
    "another path": ("/v1/chat/completions", {"model": MODEL}),
}
PATHS = (
    "/v1/models",
    f"/v1/models/{MODEL}",
    "/v1/models/nonesuch",
    "/v1/embeddings",
    "/readyz",
    "/livez",
    "/",
    "/docs",
    "/admin/keys",
)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("processes"), GATEWAY_API_KEYS=ENVIRONMENT_KEY, GATEWAY__SERVER__WORKERS="2")
    with running(gateway):
        yield gateway
        gateway.stop()
    assert MARKER not in gateway.log
    assert ENVIRONMENT_KEY not in gateway.log
    assert "internal_error" not in gateway.log
    assert "Traceback" not in gateway.log


@pytest.fixture(scope="module")
def pair(gateway: Gateway, processes: Gateway) -> tuple[Curl, Curl]:
    """One process and three, with the same key."""
    return Curl(gateway.origin, ENVIRONMENT_KEY), Curl(processes.origin, ENVIRONMENT_KEY)


def without_vectors(body: object, found: list[list[float]]) -> object:
    """The body without its vectors, which are put into `found`."""
    if isinstance(body, dict):
        return {name: without_vectors(value, found) for name, value in body.items() if name not in OF_THIS_ANSWER}
    if isinstance(body, list) and body and all(isinstance(value, float) for value in body):
        found.append(body)
        return "floats"
    if isinstance(body, list):
        return [without_vectors(value, found) for value in body]
    if isinstance(body, str) and len(body) > MIN_BASE64_CHARS and BASE64.fullmatch(body):
        found.append(np.frombuffer(base64.b64decode(body), dtype="<f4").tolist())
        return "base64"
    return body


def shown(answer: Answer) -> tuple[int, dict[str, str], object, list[list[float]]]:
    """Status, headers, body and vectors, without what is of this moment, of this key or of this start."""
    headers = {name: "" if name in OF_THIS_MOMENT or name == "content-length" else value for name, value in answer.headers.items()}
    headers.pop("x-gateway-cache", None)  # what other tests have asked for
    found: list[list[float]] = []
    body = without_vectors(answer.json(), found) if "json" in headers.get("content-type", "") else answer.body
    return answer.status, headers, body, found


def assert_same(answer: Answer, expected: Answer) -> None:
    *rest, rows = shown(answer)
    *expected_rest, expected_rows = shown(expected)
    assert rest == expected_rest
    assert len(rows) == len(expected_rows)
    for row, expected_row in zip(rows, expected_rows, strict=True):
        np.testing.assert_allclose(row, expected_row, atol=1e-5)  # texts that share a batch change the last digits


@pytest.mark.parametrize("name", REQUESTS)
def test_three_processes_answer_a_request_as_one(pair: tuple[Curl, Curl], name: str) -> None:
    path, body = REQUESTS[name]
    one, three = (curl.post(body, path=path) for curl in pair)
    assert_same(three, one)


@pytest.mark.parametrize("path", PATHS)
def test_three_processes_answer_a_get_as_one(pair: tuple[Curl, Curl], path: str) -> None:
    one, three = (curl.get(path) for curl in pair)
    assert_same(three, one)


def test_three_processes_read_gzip(pair: tuple[Curl, Curl]) -> None:
    body = gzip.compress(json.dumps({"model": MODEL, "input": "a"}).encode())
    one, three = (curl.post(body, "--header", "content-encoding: gzip") for curl in pair)
    assert three.status == 200
    assert_same(three, one)


def test_openai_speaks_with_three_processes(processes: Gateway, truth: Truth) -> None:
    with OpenAI(base_url=processes.base_url, api_key=ENVIRONMENT_KEY) as client:
        texts = list(SAMPLES.values())
        reply = client.embeddings.create(model=MODEL, input=texts)
        for text, each in zip(texts, reply.data, strict=True):
            assert_close(each.embedding, truth.vector(text))
        assert {model.id for model in client.models.list()} >= {MODEL}
        with pytest.raises(BadRequestError, match="cannot be an empty string"):
            client.embeddings.create(model=MODEL, input="")
        with pytest.raises(NotFoundError):
            client.embeddings.create(model="nonesuch", input="a")
        with pytest.raises(AuthenticationError):
            client.with_options(api_key="sk-wrong").embeddings.create(model=MODEL, input="a")


def test_many_clients_at_once_get_each_their_own(processes: Gateway) -> None:
    texts = [f"the text of client {number}" for number in range(64)]
    with OpenAI(base_url=processes.base_url, api_key=ENVIRONMENT_KEY) as client, concurrent.futures.ThreadPoolExecutor(16) as pool:
        alone = list(pool.map(lambda text: client.embeddings.create(model=MODEL, input=text).data[0].embedding, texts))
        together = [each.embedding for each in client.embeddings.create(model=MODEL, input=texts).data]
    np.testing.assert_allclose(alone, together, atol=1e-5)


def pid_of(gateway: Gateway, name: str) -> int:
    found = re.findall(rf'"process":"{name}","pid":(\d+),"event":"process_started"', gateway.log)
    return int(found[-1])


@pytest.mark.parametrize("name", ["front-0", "engine", "front-1"])
def test_the_sdks_own_retries_bring_callers_through_the_death_of_a_process(processes: Gateway, truth: Truth, name: str) -> None:
    """By default it tries three times, and waits as long as Retry-After says."""
    texts = list(SAMPLES.values())
    killed = threading.Event()

    def ask(number: int) -> list[float]:
        with OpenAI(base_url=processes.base_url, api_key=ENVIRONMENT_KEY) as client:
            for _ in range(20):
                client.embeddings.create(model=MODEL, input=texts[number % len(texts)])
            killed.wait()
            reply = client.embeddings.create(model=MODEL, input=texts[number % len(texts)])
        return reply.data[0].embedding

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, number) for number in range(8)]
        os.kill(pid_of(processes, name), signal.SIGKILL)
        killed.set()
        for number, each in enumerate(asked):
            assert_close(each.result(), truth.vector(texts[number % len(texts)]))
