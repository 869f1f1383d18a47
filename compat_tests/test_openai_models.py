"""openai-python: the list of models, and one of them."""

import pytest
from openai import AsyncOpenAI, NotFoundError, OpenAI

from compat_tests.texts import ALIASES, MODEL

NAMES = [MODEL, *ALIASES]


def test_openai_lists_the_model_and_its_aliases(client: OpenAI) -> None:
    models = client.models.list().data
    assert sorted(model.id for model in models) == sorted(NAMES)
    for model in models:
        assert model.object == "model"
        assert model.owned_by
        assert model.created > 0


async def test_openai_async_lists_the_same(async_client: AsyncOpenAI) -> None:
    assert {model.id async for model in async_client.models.list()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_openai_retrieves_a_model_by_any_of_its_names(client: OpenAI, name: str) -> None:
    """The client sends a slash in a name as %2F."""
    listed = {model.id: model for model in client.models.list()}
    assert client.models.retrieve(name) == listed[name]


@pytest.mark.parametrize("name", ["gpt-4o", "sentence-transformers/none", "ALL-MINILM-L6-V2"])
def test_openai_is_told_which_model_is_not_there(client: OpenAI, name: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.models.retrieve(name)
    assert f"The model `{name}` does not exist or you do not have access to it." in caught.value.message
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
