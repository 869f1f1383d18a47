"""What the embedding tests of others look at and ours did not: in our own words, each named after its teacher."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from compat_tests.curl import Curl, assert_error
from compat_tests.matrix.clients.speaking import numbers
from compat_tests.texts import LONG, MODEL, SAMPLES, VERY_LONG
from compat_tests.truth import Truth, assert_close

TEXTS = [SAMPLES["plain"], SAMPLES["japanese"]]
FORMATS: dict[str, dict[str, Any]] = {"default": {}, "float": {"encoding_format": "float"}, "base64": {"encoding_format": "base64"}}
formats = pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS.keys())


# openai-python, tests/lib/test_embeddings.py: the decoder works on a response however it is read.
@formats
def test_openai_reads_raw_and_streamed_responses_alike(client: OpenAI, truth: Truth, options: dict[str, Any]) -> None:
    raw = client.embeddings.with_raw_response.create(model=MODEL, input=TEXTS, **options).parse()
    with client.embeddings.with_streaming_response.create(model=MODEL, input=TEXTS, **options) as response:
        streamed = response.parse()
    for answer in (raw, streamed):
        assert_close([numbers(row.embedding) for row in answer.data], truth.vectors(TEXTS))


# The same file, for the asynchronous client.
@formats
async def test_openai_async_reads_a_streamed_response(async_client: AsyncOpenAI, truth: Truth, options: dict[str, Any]) -> None:
    async with async_client.embeddings.with_streaming_response.create(model=MODEL, input=TEXTS, **options) as response:
        answer = await response.parse()
    assert_close([numbers(row.embedding) for row in answer.data], truth.vectors(TEXTS))


# llama.cpp, tools/server/tests/unit/test_embedding.py: the same prompt gives the same result, wherever in a request it stands.
def test_a_text_that_stands_several_times_in_a_request_has_one_vector(client: OpenAI, truth: Truth) -> None:
    texts = ["twice", LONG, "twice", "a", "twice", LONG]
    rows = [row.embedding for row in client.embeddings.create(model=MODEL, input=texts).data]
    assert_close(rows, truth.vectors(texts))
    assert_close([rows[2], rows[4], rows[5]], [rows[0], rows[0], rows[1]])


# llama.cpp, the same file: inputs whose lengths stand around a size at which the engine takes another way, all in one request.
def test_texts_around_the_width_of_a_window_do_not_disturb_each_other(client: OpenAI, truth: Truth) -> None:
    texts = [f"{letter} " * num_words for letter, num_words in zip("abcde", (253, 254, 255, 256, 257), strict=True)]
    answer = client.embeddings.create(model=MODEL, input=texts)
    assert_close([row.embedding for row in answer.data], truth.vectors(texts))
    assert answer.usage.prompt_tokens == truth.num_tokens(*texts)


# llama.cpp, the same file: it takes objects in the shape of chat content; here they are refused by name, and never stringified.
@pytest.mark.parametrize(
    "given",
    [
        {"content": "a"},
        {"prompt_string": "a"},
        {"content": [{"type": "text", "text": "a"}]},
        {"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
    ],
    ids=["content", "prompt_string", "parts", "image"],
)
def test_chat_content_is_no_input(curl: Curl, given: object) -> None:
    assert_error(curl.post({"model": MODEL, "input": given}), 400, "invalid_type", "a string, an array of strings", param="input")


# An array of objects is Jina's form of `input`, {"text": ...} each; chat content is none.
@pytest.mark.parametrize(
    "given", [{"content": [{"type": "text", "text": "a"}]}, {"type": "text", "text": "a"}], ids=["content", "a part"]
)
def test_chat_content_in_a_list_is_no_input(curl: Curl, given: object) -> None:
    assert_error(curl.post({"model": MODEL, "input": [given]}), 400, "invalid_value", "an object has 'text' alone", param="input")


# llama.cpp, the same file: a string inside an array of ids, inside an array.
def test_a_text_among_the_ids_of_one_input_is_refused(curl: Curl) -> None:
    answer = curl.post({"model": MODEL, "input": [[12, 34], [12, "string", 34]]})
    assert_error(answer, 400, "invalid_type", "input[1][1]", param="input")


# vLLM, tests/entrypoints/openai/embedding_tests/test_embedding.py: it takes `messages` for `input`, which we do not.
def test_messages_are_no_input(curl: Curl) -> None:
    answer = curl.post({"model": MODEL, "messages": [{"role": "user", "content": "a"}]})
    assert_error(answer, 400, "invalid_value", "this server embeds 'input' alone", param="messages")


# vLLM, the same file, and infinity, test_openapi_client_compat.py: options of theirs, sent by programs that were written for them.
@pytest.mark.parametrize(
    "extra",
    [{"truncate_prompt_tokens": -1}, {"add_special_tokens": True}, {"modality": "text"}, {"priority": 5}],
    ids=lambda extra: next(iter(extra)),
)
def test_an_option_of_another_server_changes_neither_vector_nor_usage(client: OpenAI, truth: Truth, extra: dict[str, Any]) -> None:
    answer = client.embeddings.create(model=MODEL, input=SAMPLES["plain"], extra_body=extra)
    assert_close(answer.data[0].embedding, truth.vector(SAMPLES["plain"]))
    assert answer.usage.prompt_tokens == truth.num_tokens(SAMPLES["plain"])


@pytest.mark.parametrize(
    "extra", [{"truncate_prompt_tokens": 10}, {"add_special_tokens": False}], ids=lambda extra: next(iter(extra))
)
def test_an_option_that_would_change_the_vector_is_refused_by_name(client: OpenAI, extra: dict[str, Any]) -> None:
    [name] = extra
    with pytest.raises(openai.BadRequestError, match=name) as caught:
        client.embeddings.create(model=MODEL, input=SAMPLES["plain"], extra_body=extra)
    assert caught.value.param == name


# vLLM, tests/entrypoints/openai/embedding_tests/test_embedding_long_text.py: chunked texts beside a short one, each in its place.
def test_a_short_text_between_long_ones_is_what_it_is_alone(client: OpenAI, truth: Truth) -> None:
    answer = client.embeddings.create(model=MODEL, input=[LONG, "short", VERY_LONG])
    assert [row.index for row in answer.data] == [0, 1, 2]
    assert_close([row.embedding for row in answer.data], truth.vectors([LONG, "short", VERY_LONG]))


# infinity, tests/end_to_end/test_api_with_dummymodel.py: what is just within the limit works, and one more does not.
def test_a_text_of_exactly_as_many_tokens_as_allowed_is_embedded(client: OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input="a " * (16_384 - 2))  # [CLS] and [SEP] count too
    assert answer.usage.prompt_tokens == 16_384
    with pytest.raises(openai.BadRequestError, match="maximum input length is 16384 tokens"):
        client.embeddings.create(model=MODEL, input="a " * (16_384 - 1))
