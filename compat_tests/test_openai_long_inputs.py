"""openai-python: texts longer than the model reads, by each rule."""

import pytest
from openai import BadRequestError, OpenAI

from compat_tests.texts import LONG, MODEL, VERY_LONG
from compat_tests.truth import Truth, assert_close

SHORT = "A text that fits."
MAX_MODEL_TOKENS = 256


def long_inputs(client: OpenAI, texts: list[str], **extra: str) -> tuple[list[list[float]], str | None]:
    """The vectors, and what the response says was done to them."""
    answer = client.embeddings.with_raw_response.create(model=MODEL, input=texts, extra_body=extra)
    return [row.embedding for row in answer.parse().data], answer.headers.get("x-gateway-long-inputs")


@pytest.mark.parametrize("extra", [{}, {"long_input": "chunk"}], ids=["by default", "by request"])
def test_openai_long_texts_are_embedded_in_windows(client: OpenAI, truth: Truth, extra: dict[str, str]) -> None:
    texts = [LONG, SHORT, VERY_LONG]
    vectors, said = long_inputs(client, texts, **extra)
    assert_close(vectors, truth.vectors(texts, long_input="chunk"))
    assert said == "chunked=2"


def test_openai_long_texts_may_be_cut_at_the_end(client: OpenAI, truth: Truth) -> None:
    texts = [LONG, SHORT]
    vectors, said = long_inputs(client, texts, long_input="end")
    assert_close(vectors, truth.vectors(texts, long_input="end"))
    assert said == "shortened=1"


def test_openai_long_texts_may_be_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match=r"Invalid 'input\[1\]': maximum input length is 256 tokens\.") as caught:
        long_inputs(client, [SHORT, LONG], long_input="error")
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


@pytest.mark.parametrize("rule", ["chunk", "end", "error"])
def test_openai_texts_that_just_fit_are_never_changed(client: OpenAI, truth: Truth, rule: str) -> None:
    fits = "a " * (MAX_MODEL_TOKENS - 2)
    assert truth.num_tokens(fits) == MAX_MODEL_TOKENS
    vectors, said = long_inputs(client, [fits], long_input=rule)
    assert_close(vectors, truth.vectors([fits], long_input="end"))
    assert said is None


@pytest.mark.parametrize("num_tokens", [257, 2 * 254 + 2, 2 * 254 + 3])
def test_openai_windows_have_254_tokens_and_the_last_one_what_is_left(client: OpenAI, truth: Truth, num_tokens: int) -> None:
    text = ("a " * (num_tokens - 2)).strip()
    assert truth.num_tokens(text) == num_tokens
    vectors, said = long_inputs(client, [text])
    assert_close(vectors, truth.vectors([text]))
    assert said == "chunked=1"


def test_openai_a_very_long_text_is_counted_whole(client: OpenAI, truth: Truth) -> None:
    answer = client.embeddings.create(model=MODEL, input=VERY_LONG)
    assert answer.usage.prompt_tokens == truth.num_tokens(VERY_LONG) > 9 * MAX_MODEL_TOKENS
