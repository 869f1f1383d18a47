"""Which prompt a request gets: what clients may send, and what a reply says of it."""

import pytest

from gateway.tests.api.conftest import KEY, client_of


@pytest.fixture
async def ask(gateway, embedder):
    """POSTs one text; `about` is what the model is said to have."""
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:

        async def post(about=None, **body):
            embedder.about = about or {}
            return await client.post("/v1/embeddings", json={"model": "m", "input": "hello world", **body})

        yield post


E5 = {"prompts": ("query", "passage")}
QWEN = {"prompts": ("query",), "takes_instruction": True}


@pytest.mark.parametrize("field", ["input_type", "prompt_name"])
async def test_a_synonym_reaches_the_model_as_its_own_name_and_the_reply_says_so(ask, embedder, field):
    reply = await ask(E5, **{field: "search_document"})
    assert reply.status_code == 200
    assert reply.headers["x-gateway-prompt"] == "passage"
    assert embedder.prepared[-1].input_type == "passage"


async def test_synonyms_share_the_cache_and_purposes_do_not(ask, embedder):
    for name in ("document", "passage", "search_document"):
        await ask(E5, input_type=name)
    assert embedder.num_embedded == 1
    await ask(E5, input_type="query")
    await ask(E5)
    assert embedder.num_embedded == 3


async def test_a_model_without_prompts_says_that_none_was_put_before_the_texts(ask):
    reply = await ask({}, input_type="query")
    assert reply.headers["x-gateway-prompt"] == "none"
    assert "x-gateway-prompt" not in (await ask({})).headers
    assert "x-gateway-prompt" not in (await ask(E5)).headers


@pytest.mark.parametrize("field", ["input_type", "prompt_name"])
async def test_a_prompt_the_model_has_not_is_a_400_that_names_those_it_has(ask, embedder, field):
    reply = await ask(E5, **{field: "clustering"})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["param"] == field
    assert "'query', 'passage'" in error["message"]
    assert not embedder.prepared


@pytest.mark.parametrize("name", ["query", "passage"])
async def test_a_prompt_is_named_once(ask, name):
    reply = await ask(E5, input_type="query", prompt_name=name)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt_name")


async def test_an_instruction_reaches_a_model_that_takes_one_and_has_vectors_of_its_own(ask, embedder):
    reply = await ask(QWEN, instruction="Find the bug")
    assert reply.headers["x-gateway-prompt"] == "query"
    assert embedder.prepared[-1].instruction == "Find the bug"
    await ask(QWEN, instruction="Find the bug", input_type="search_query")
    assert embedder.num_embedded == 1
    await ask(QWEN, instruction="Find the author")
    await ask(QWEN, input_type="query")
    assert embedder.num_embedded == 3


@pytest.mark.parametrize(
    ("about", "body"),
    [
        (E5, {"instruction": "Find the bug"}), (QWEN, {"instruction": ""}), (QWEN, {"instruction": 2049 * "x"}),
        (QWEN, {"instruction": "x", "input_type": "document"}), (QWEN, {"instruction": 7}),
    ],
)  # fmt: skip
async def test_an_instruction_that_cannot_be_followed_is_refused_by_name(ask, about, body):
    reply = await ask(about, **body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "instruction")


async def test_nulls_are_nothing(ask):
    reply = await ask(E5, input_type=None, prompt_name=None, instruction=None)
    assert reply.status_code == 200
    assert "x-gateway-prompt" not in reply.headers
