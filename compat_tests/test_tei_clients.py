"""text-embeddings-inference's clients, unmodified, pointed at the gateway by its URL alone: huggingface_hub's and Chroma's."""

import json

import httpx
import numpy as np
import pytest
from chromadb.utils.embedding_functions.huggingface_embedding_function import HuggingFaceEmbeddingServer
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.process import Gateway
from compat_tests.test_faults import OwnGateway
from compat_tests.texts import LONG, MODEL, SAMPLES
from compat_tests.truth import Truth, assert_close

TEXTS = list(SAMPLES.values())


def in_path(gateway: Gateway, model: str = MODEL) -> str:
    return f"{gateway.origin}/tei/{model}"


@pytest.fixture
def huggingface(gateway: Gateway, key: str) -> InferenceClient:
    return InferenceClient(in_path(gateway), token=key)


@pytest.mark.parametrize("model", ["", f"/tei/{MODEL}", f"/tei/sentence-transformers/{MODEL}", f"/tei/{MODEL}/embed"])
def test_huggingface_hub_embeds_with_the_url_as_its_model(gateway: Gateway, key: str, truth: Truth, model: str) -> None:
    client = InferenceClient(gateway.origin + model, token=key)
    assert_close(client.feature_extraction(TEXTS[0])[0], truth.vector(TEXTS[0]))
    assert_close(client.feature_extraction(TEXTS), truth.vectors(TEXTS))


async def test_huggingface_hub_embeds_asynchronously(gateway: Gateway, key: str, truth: Truth) -> None:
    async with AsyncInferenceClient(in_path(gateway), token=key) as client:
        assert_close(await client.feature_extraction(TEXTS), truth.vectors(TEXTS))


def test_huggingface_hub_compares_sentences(huggingface: InferenceClient, truth: Truth) -> None:
    found = huggingface.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])
    rows = np.asarray(truth.vectors(TEXTS))
    np.testing.assert_allclose(found, rows[1:] @ rows[0], atol=1e-5)


def test_huggingface_hubs_options_are_honoured(huggingface: InferenceClient, truth: Truth) -> None:
    cut = huggingface.feature_extraction(TEXTS[0], dimensions=64)[0]
    whole = np.asarray(truth.vector(TEXTS[0]))[:64]
    np.testing.assert_allclose(cut, whole / np.linalg.norm(whole), atol=1e-5)
    assert huggingface.feature_extraction(LONG, truncate=True, truncation_direction="right").shape == (1, 384)
    for options in ({"truncate": False}, {"prompt_name": "query"}):
        with pytest.raises(HfHubHTTPError) as refused:
            huggingface.feature_extraction(LONG, **options)  # type: ignore[arg-type]
        assert refused.value.response.status_code == 422
        assert refused.value.response.json()["error_type"] == "Validation"


def test_huggingface_hub_is_told_what_serves(gateway: Gateway, key: str) -> None:
    info = InferenceClient(in_path(gateway), token=key, provider="hf-inference").get_endpoint_info()
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["served_model_name"]) == (256, MODEL)


def test_a_wrong_key_is_huggingface_hubs_401(gateway: Gateway) -> None:
    with pytest.raises(HfHubHTTPError) as refused:
        InferenceClient(in_path(gateway), token="hf_wrong").feature_extraction("a")
    assert refused.value.response.status_code == 401


def test_chroma_embeds_through_its_class_for_teis_server(
    gateway: Gateway, key: str, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", key)
    function = HuggingFaceEmbeddingServer(url=f"{in_path(gateway)}/embed", api_key_env_var="THE_KEY")
    with function._session:  # noqa: SLF001 - it closes it nowhere
        assert_close(function(TEXTS), truth.vectors(TEXTS))


def test_a_gateway_has_the_same_vectors_through_the_tei_door_of_another(
    gateway: Gateway, own_gateway: OwnGateway, truth: Truth
) -> None:
    row = {"name": "theirs", "backend": "tei", "url": in_path(gateway), "key": {"env": "THEIR_KEY"}, "long_input": "end"}
    with running(own_gateway(GATEWAY__MODELS=json.dumps([row]), THEIR_KEY=ENVIRONMENT_KEY)) as front:
        headers = {"authorization": f"Bearer {ENVIRONMENT_KEY}"}
        texts = [text for text in TEXTS if text != LONG]
        reply = httpx.post(f"{front.origin}/embed", json={"inputs": texts}, headers=headers)
        assert_close(reply.json(), truth.vectors(texts))
        assert reply.headers["x-compute-tokens"] == str(truth.num_tokens(*texts))
        cut = httpx.post(f"{front.origin}/embed", json={"inputs": LONG}, headers=headers)
        assert cut.headers["x-compute-tokens"] == "256"
        assert_close(cut.json()[0], truth.vector(LONG, long_input="end"))
        refused = httpx.post(f"{front.origin}/embed", json={"inputs": [101, 102]}, headers=headers)
        assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
        front.stop()
    assert ENVIRONMENT_KEY not in front.log
