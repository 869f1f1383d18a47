"""Ollama's clients, unmodified, with a host and a key: ollama-python, what is built on it, ollama-js, LangChain.js, Open WebUI."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from chromadb.utils.embedding_functions import OllamaEmbeddingFunction
from haystack import Document
from haystack_integrations.components.embedders.ollama import OllamaDocumentEmbedder, OllamaTextEmbedder
from langchain_ollama import OllamaEmbeddings
from llama_index.embeddings.ollama import OllamaEmbedding
from ollama import AsyncClient, Client, ResponseError

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.process import Gateway
from compat_tests.texts import LONG, MODEL, SAMPLES
from compat_tests.truth import Truth, Vectors, assert_close, shortened

TEXTS = list(SAMPLES.values())
NODE = Path(__file__).with_name("node")


def expected(truth: Truth) -> Vectors:
    """One of the texts is longer than the model reads, and Ollama's API cuts it."""
    return truth.vectors(TEXTS, long_input="end")


@pytest.fixture
def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def ollama(gateway: Gateway, headers: dict[str, str]) -> Iterator[Client]:
    with Client(host=gateway.origin, headers=headers) as client:
        yield client


@pytest.fixture
def key_in_environment(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Where a framework has no setting for headers, ollama-python takes the key from the environment."""
    monkeypatch.setenv("OLLAMA_API_KEY", key)


@pytest.mark.parametrize("model", [MODEL, f"{MODEL}:latest", MODEL.lower(), "text-embedding-3-small:latest"])
def test_ollama_embeds_texts_in_their_order(ollama: Client, truth: Truth, model: str) -> None:
    reply = ollama.embed(model=model, input=TEXTS)
    assert_close(reply.embeddings, expected(truth))
    assert reply.model == model
    assert reply.prompt_eval_count == truth.num_tokens(*TEXTS)
    assert reply.total_duration
    assert_close(ollama.embed(model=model, input=TEXTS[0]).embeddings, truth.vectors(TEXTS[:1]))


def test_ollama_sends_everything_that_it_can(ollama: Client, truth: Truth) -> None:
    options = {"num_ctx": 4096, "temperature": 0.5, "num_thread": 2}
    reply = ollama.embed(model=MODEL, input=TEXTS, truncate=True, options=options, keep_alive="5m", dimensions=128)
    assert_close(reply.embeddings, shortened(expected(truth), 128))
    old = ollama.embeddings(model=MODEL, prompt=TEXTS[0], options=options, keep_alive=-1)
    assert_close(old.embedding, truth.vector(TEXTS[0]))


async def test_ollama_asynchronously(gateway: Gateway, headers: dict[str, str], truth: Truth) -> None:
    async with AsyncClient(host=gateway.origin, headers=headers) as client:
        assert_close((await client.embed(model=MODEL, input=TEXTS)).embeddings, expected(truth))
        assert_close((await client.embeddings(model=MODEL, prompt=TEXTS[0])).embedding, truth.vector(TEXTS[0]))
        assert [each.model for each in (await client.list()).models] == [each.model for each in (await client.ps()).models]


def test_ollama_embeds_an_empty_text_among_others_and_loads_a_model_without_one(ollama: Client, truth: Truth) -> None:
    assert_close(ollama.embed(model=MODEL, input=["", "a"]).embeddings, truth.vectors(["", "a"]))
    assert ollama.embed(model=MODEL, input="").embeddings == ollama.embed(model=MODEL, input=[]).embeddings == []
    assert ollama.embeddings(model=MODEL, prompt="").embedding == []


def test_ollama_has_long_texts_cut_or_refused(gateway: Gateway, ollama: Client, headers: dict[str, str], truth: Truth) -> None:
    for options in ({}, {"truncate": True}):
        assert_close(ollama.embed(model=MODEL, input=LONG, **options).embeddings, [truth.vector(LONG, long_input="end")])
    reply = httpx.post(f"{gateway.origin}/api/embed", json={"model": MODEL, "input": [LONG, "a"]}, headers=headers)
    assert reply.headers["x-gateway-long-inputs"] == "shortened=1"
    with pytest.raises(ResponseError) as refused:
        ollama.embed(model=MODEL, input=LONG, truncate=False)
    assert (refused.value.status_code, refused.value.error) == (400, "the input length exceeds the context length")


def test_ollama_reads_the_lists_and_a_model(ollama: Client) -> None:
    listed = {each.model: each for each in ollama.list().models}
    assert f"{MODEL}:latest" in listed
    shown = ollama.show(MODEL)
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo
    architecture = shown.modelinfo["general.architecture"]
    assert shown.modelinfo[f"{architecture}.embedding_length"] == 384
    assert shown.modelinfo[f"{architecture}.context_length"] == 256
    [running] = [each for each in ollama.ps().models if each.model == f"{MODEL}:latest"]
    assert running.digest == listed[f"{MODEL}:latest"].digest
    assert running.expires_at
    assert running.context_length == 256


def test_ollama_raises_its_own_errors(gateway: Gateway, ollama: Client) -> None:
    for ask in (lambda: ollama.embed(model="nothing", input="a"), lambda: ollama.embeddings(model="nothing", prompt="a")):
        with pytest.raises(ResponseError) as refused:
            ask()
        assert (refused.value.status_code, refused.value.error) == (404, 'model "nothing" not found, try pulling it first')
    with Client(host=gateway.origin) as stranger, pytest.raises(ResponseError, match="API key") as refused:
        stranger.embed(model=MODEL, input="a")
    assert refused.value.status_code == 401
    with pytest.raises(ResponseError) as refused:
        ollama.chat(model=MODEL, messages=[])
    assert refused.value.status_code == 404


def test_langchain_embeds_more_texts_at_once_than_openai_takes(gateway: Gateway, headers: dict[str, str], truth: Truth) -> None:
    embeddings = OllamaEmbeddings(
        model=MODEL, base_url=gateway.origin, client_kwargs={"headers": headers}, validate_model_on_init=True
    )
    texts = [f"text {number}" for number in range(2049)]
    with embeddings._client:  # noqa: SLF001 - it does not close what it opened
        found = embeddings.embed_documents(texts)
        assert len(found) == len(texts)
        assert_close(found[::128], truth.vectors(texts[::128]))
        assert_close(embeddings.embed_query(TEXTS[0]), truth.vector(TEXTS[0]))


def test_llama_index_embeds(gateway: Gateway, headers: dict[str, str], truth: Truth) -> None:
    embedding = OllamaEmbedding(model_name=MODEL, base_url=gateway.origin, client_kwargs={"headers": headers})
    with embedding._client:  # noqa: SLF001
        assert_close(embedding.get_text_embedding_batch(TEXTS), expected(truth))
        assert_close(embedding.get_query_embedding(TEXTS[0]), truth.vector(TEXTS[0]))


@pytest.mark.usefixtures("key_in_environment")
def test_haystack_embeds(gateway: Gateway, truth: Truth) -> None:
    documents = OllamaDocumentEmbedder(model=MODEL, url=gateway.origin, progress_bar=False)
    query = OllamaTextEmbedder(model=MODEL, url=gateway.origin)
    found = documents.run([Document(content=text) for text in TEXTS])
    assert_close([each.embedding for each in found["documents"]], expected(truth))
    assert_close(query.run(TEXTS[0])["embedding"], truth.vector(TEXTS[0]))
    for each in (documents, query):
        each._client.close()  # noqa: SLF001 - what stays open is a ResourceWarning


@pytest.mark.usefixtures("key_in_environment")
@pytest.mark.parametrize("path", ["", "/api/embeddings"])
def test_chroma_embeds(gateway: Gateway, truth: Truth, path: str) -> None:
    embed = OllamaEmbeddingFunction(url=f"{gateway.origin}{path}", model_name=MODEL)
    with embed._client:  # noqa: SLF001
        assert_close(np.stack(embed(TEXTS)), expected(truth))


def test_open_webuis_requests(gateway: Gateway, headers: dict[str, str], truth: Truth) -> None:
    """backend/open_webui/retrieval/utils.py and routers/ollama.py of open-webui/open-webui."""
    with httpx.Client(base_url=gateway.origin, headers=headers) as client:
        assert [int(part) for part in client.get("/api/version").json()["version"].split(".")] >= [0, 5]
        assert f"{MODEL}:latest" in [each["model"] for each in client.get("/api/tags").json()["models"]]
        sent = {"input": TEXTS, "model": MODEL, "truncate": True}
        assert_close(client.post("/api/embed", json=sent).json()["embeddings"], expected(truth))
        assert client.head("/").status_code == 200  # AnythingLLM's OllamaEmbedder looks whether it is there


def test_node_embeds(gateway: Gateway, key: str, truth: Truth) -> None:
    """ollama-js and LangChain.js."""
    asked = {"host": gateway.origin, "key": key, "model": f"{MODEL}:latest", "input": TEXTS, "fitting": TEXTS[:5]}
    done = subprocess.run(
        ["node", NODE / "ollama.mjs"], input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    said = json.loads(done.stdout)
    assert_close(said["vectors"], expected(truth))
    assert_close(said["langchain"], truth.vectors(TEXTS[:5]))
    assert_close(said["old"], truth.vector(TEXTS[0]))
    assert said["listed"] == said["running"]
    assert said["capabilities"] == ["embedding"]
    assert said["error"] == {"name": "ResponseError", "status": 404, "message": 'model "nothing" not found, try pulling it first'}


def test_a_gateway_before_the_door_of_another(
    gateway: Gateway, key: str, truth: Truth, own_gateway: Callable[..., Gateway]
) -> None:
    row = {"name": "theirs", "backend": "ollama", "url": gateway.origin, "model": MODEL, "key": {"env": "THEIR_KEY"}}
    front = own_gateway(GATEWAY__MODELS=json.dumps([row]), THEIR_KEY=key)
    headers = {"Authorization": f"Bearer {ENVIRONMENT_KEY}"}
    with running(front), Client(host=front.origin, headers=headers) as through:
        assert_close(through.embed(model="theirs", input=TEXTS).embeddings, expected(truth))
        assert_close(through.embed(model="theirs", input=LONG).embeddings, [truth.vector(LONG, long_input="end")])
        assert_close(through.embeddings(model="theirs", prompt=TEXTS[0]).embedding, truth.vector(TEXTS[0]))
        with pytest.raises(ResponseError, match="the input length exceeds the context length") as refused:
            through.embed(model="theirs", input=["a", LONG], truncate=False)
        assert refused.value.status_code == 400
        front.stop()
