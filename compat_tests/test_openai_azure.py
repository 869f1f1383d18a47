"""openai-python's Azure client: the model stands in the path, the key in `api-key`."""

from collections.abc import Iterator

import openai
import pytest
from openai import AzureOpenAI

from compat_tests.process import Gateway
from compat_tests.texts import ALIASES, MODEL, SAMPLES
from compat_tests.truth import Truth, assert_close

TEXTS = list(SAMPLES.values())


@pytest.fixture(scope="module")
def azure(gateway: Gateway, key: str) -> Iterator[AzureOpenAI]:
    with AzureOpenAI(azure_endpoint=gateway.origin, api_key=key, api_version="2024-10-21") as client:
        yield client


@pytest.mark.parametrize("name", [MODEL, *ALIASES])
def test_openai_azure_gives_the_same_vectors(azure: AzureOpenAI, truth: Truth, name: str) -> None:
    answer = azure.embeddings.create(model=name, input=TEXTS)
    assert answer.model == name
    assert_close([row.embedding for row in answer.data], truth.vectors(TEXTS))


def test_openai_azure_lists_the_models(azure: AzureOpenAI) -> None:
    assert {model.id for model in azure.models.list()} == {MODEL, *ALIASES}


def test_openai_azure_is_told_which_model_is_not_there(azure: AzureOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="The model `gpt-4o` does not exist") as caught:
        azure.embeddings.create(model="gpt-4o", input="a")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_openai_azure_is_told_that_its_key_is_wrong(azure: AzureOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        azure.with_options(api_key="sk-not-a-key-of-this-gateway").embeddings.create(model=MODEL, input="a")
    assert caught.value.code == "invalid_api_key"
