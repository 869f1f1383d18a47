"""Which prompt a request means, on models of every arrangement that is found in the field."""

from dataclasses import replace

import pytest

from gateway.embedding.embedder import Description
from gateway.embedding.prompt import instruction_format_of, prompt_header, resolve_input_type, resolve_instruction
from gateway.errors import InvalidValue

PLAIN = Description(
    backend="b", source="s", dimensions=4, max_tokens=8, long_input="chunk", fingerprint="f", runtime="r", device="cpu",
    precision="float32", created=0,
)  # fmt: skip
E5 = replace(PLAIN, prompts=("query", "passage"))
NOMIC = replace(PLAIN, prompts=("search_query", "search_document", "clustering", "classification"))
ARCTIC = replace(PLAIN, prompts=("query",))  # for queries alone
QWEN = replace(PLAIN, prompts=("query",), takes_instruction=True)
GEMMA = replace(PLAIN, prompts=("query", "document", "STS", "Retrieval-query"))
JINA = replace(PLAIN, prompts=("retrieval.query", "retrieval.passage", "text-matching"))
TOPICS = replace(PLAIN, prompts=("STS",))
ROUTER = replace(PLAIN, tasks=("query", "document"))
ROUTER_FOR_QUERIES = replace(PLAIN, tasks=("query",))


@pytest.mark.parametrize(
    ("about", "asked", "expected"),
    [
        (E5, "query", "query"), (E5, "search_query", "query"), (E5, "document", "passage"), (E5, "search_document", "passage"),
        (E5, "corpus", "passage"), (E5, "passage", "passage"),
        (NOMIC, "query", "search_query"), (NOMIC, "document", "search_document"), (NOMIC, "passage", "search_document"),
        (NOMIC, "clustering", "clustering"),
        (ARCTIC, "query", "query"), (ARCTIC, "document", "document"), (ARCTIC, "passage", "document"),
        (ARCTIC, "corpus", "document"),
        (GEMMA, "document", "document"), (GEMMA, "passage", "document"), (GEMMA, "STS", "STS"),
        (GEMMA, "Retrieval-query", "Retrieval-query"),
        (JINA, "query", "retrieval.query"), (JINA, "passage", "retrieval.passage"), (JINA, "text-matching", "text-matching"),
        (PLAIN, "query", "query"), (PLAIN, "search_document", "document"),
        (ROUTER, "query", "query"), (ROUTER, "passage", "document"),
        (E5, None, None), (PLAIN, None, None),
    ],
)  # fmt: skip
def test_a_word_means_the_models_own_prompt_for_that_purpose(about, asked, expected):
    assert resolve_input_type(asked, about) == expected


@pytest.mark.parametrize(
    ("about", "asked", "listed"),
    [
        (E5, "clustering", "'query', 'passage'"), (E5, "Query", "'query', 'passage'"), (E5, "", "'query', 'passage'"),
        (TOPICS, "query", "'STS'"), (TOPICS, "document", "'STS'"), (PLAIN, "classification", "it has none"),
        (ROUTER_FOR_QUERIES, "document", "'query'"), (replace(PLAIN, prompts=("passage",)), "query", "'passage'"),
    ],
)  # fmt: skip
def test_a_prompt_the_model_has_not_is_refused_naming_those_it_has(about, asked, listed):
    with pytest.raises(InvalidValue, match="this model has no prompt") as refusal:
        resolve_input_type(asked, about, param="prompt_name")
    assert listed in refusal.value.message
    assert refusal.value.param == "prompt_name"


def test_a_refused_name_is_repeated_in_part_and_without_control_characters():
    with pytest.raises(InvalidValue) as refusal:
        resolve_input_type("\x1b[31m" + 1000 * "x", E5)
    assert refusal.value.message.isprintable()
    assert len(refusal.value.message) < 200


def test_an_instruction_is_for_queries_of_models_that_take_one():
    assert resolve_instruction("Find the bug", None, QWEN) == "query"
    assert resolve_instruction("Find the bug", "query", QWEN) == "query"
    assert resolve_instruction(None, "document", QWEN) == "document"
    with pytest.raises(InvalidValue, match="for queries") as refusal:
        resolve_instruction("Find the bug", "document", QWEN)
    assert refusal.value.param == "instruction"
    with pytest.raises(InvalidValue, match="takes no instruction"):
        resolve_instruction("Find the bug", None, E5)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
            "Instruct: {instruction}\nQuery:",
        ),
        ("Instruct: Retrieve semantically similar text.\nQuery: ", "Instruct: {instruction}\nQuery: "),
        ("query: ", None), ("Represent this sentence for searching relevant passages: ", None), ("", None),
    ],
)  # fmt: skip
def test_a_query_prompt_shows_where_an_instruction_stands(prompt, expected):
    assert instruction_format_of({"query": prompt, "document": ""}) == expected


def test_a_reply_says_which_prompt_was_put_before_its_texts():
    assert prompt_header("passage", E5) == {"x-gateway-prompt": "passage"}
    assert prompt_header("query", PLAIN) == {"x-gateway-prompt": "none"}
    assert prompt_header("document", ARCTIC) == {"x-gateway-prompt": "none"}
    assert prompt_header(None, E5) == {}
    assert prompt_header("é\n", replace(PLAIN, prompts=("é\n",))) == {"x-gateway-prompt": "??"}
