"""openai-python: what a response says beside its body."""

import re
from uuid import uuid4

import pytest
from openai import APIStatusError, OpenAI
from openai.types import CreateEmbeddingResponse

from compat_tests.curl import REQUEST_ID
from compat_tests.texts import ALIASES, LONG, MODEL

STAGE = re.compile(r"(\w+);dur=\d+(\.\d+)?")


@pytest.mark.parametrize("name", [MODEL, *ALIASES])
def test_openai_raw_responses_carry_the_headers(client: OpenAI, name: str) -> None:
    headers = client.embeddings.with_raw_response.create(model=name, input="a").headers
    assert REQUEST_ID.fullmatch(headers["x-request-id"])
    assert headers["openai-version"] == "2020-10-01"
    assert headers["openai-model"] == name
    assert re.fullmatch(r"\d+", headers["openai-processing-ms"])
    assert headers["content-type"] == "application/json"
    assert "x-gateway-long-inputs" not in headers


def test_openai_server_timing_names_the_stages(client: OpenAI) -> None:
    unheard_of = f"a text that no cache has seen: {uuid4()}"
    headers = client.embeddings.with_raw_response.create(model=MODEL, input=unheard_of).headers
    stages = [STAGE.fullmatch(part) for part in headers["Server-Timing"].split(", ")]
    assert {stage[1] for stage in stages if stage} >= {"tokenize", "queue", "compute", "encode"}
    assert None not in stages


def test_openai_is_told_which_vectors_these_are(client: OpenAI) -> None:
    """One model, one fingerprint: by any name, in any response, and in the list of models."""
    create = client.embeddings.with_raw_response.create
    fingerprints = {create(model=name, input=["a", LONG]).headers["x-gateway-fingerprint"] for name in [MODEL, *ALIASES]}
    assert len(fingerprints) == 1
    assert all((model.model_extra or {})["fingerprint"] in fingerprints for model in client.models.list())


def test_openai_is_told_of_long_inputs(client: OpenAI) -> None:
    headers = client.embeddings.with_raw_response.create(model=MODEL, input=[LONG, "a", LONG, LONG]).headers
    assert headers["x-gateway-long-inputs"] == "chunked=3"


def request_id_of(answer: CreateEmbeddingResponse) -> str:
    return answer._request_id or ""  # noqa: SLF001 - documented as public, unlike other names that begin so


def test_openai_knows_the_request_id(client: OpenAI) -> None:
    first, second = (client.embeddings.create(model=MODEL, input="a") for _ in range(2))
    assert REQUEST_ID.fullmatch(request_id_of(first))
    assert request_id_of(first) != request_id_of(second)


def test_openai_errors_know_the_request_id(client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as caught:
        client.embeddings.create(model="unknown", input="a")
    assert REQUEST_ID.fullmatch(caught.value.request_id or "")


@pytest.mark.parametrize("request_id", ["my-own_id.7", "x" * 128])
def test_openai_may_choose_the_request_id(client: OpenAI, request_id: str) -> None:
    answer = client.embeddings.create(model=MODEL, input="a", extra_headers={"x-request-id": request_id})
    assert request_id_of(answer) == request_id


@pytest.mark.parametrize("request_id", ["x" * 129, "a b", "a/b", "<script>"])
def test_openai_does_not_get_back_a_harmful_request_id(client: OpenAI, request_id: str) -> None:
    answer = client.embeddings.create(model=MODEL, input="a", extra_headers={"x-request-id": request_id})
    assert REQUEST_ID.fullmatch(request_id_of(answer))


def test_openai_organization_and_project_are_passed_over(client: OpenAI) -> None:
    other = client.with_options(organization="org-1", project="proj-1")
    assert other.embeddings.create(model=MODEL, input="a").data
