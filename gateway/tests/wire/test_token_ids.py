"""Token arrays: which ids are tokens, how many may come, and that 400 is all a client can get wrong."""

import pytest

from gateway.errors import ClientError, GatewayError
from gateway.wire.token_ids import NUM_RANKS, SPECIAL_TOKENS, TOKEN_ID_RANGES, texts_of

GOOD = [0, 100255, 100257, 100258, 100259, 100260, 100276]
BAD = [-1, 100256, *range(100261, 100276), 100277, 2**31, 2**70, -(2**70)]


def refusal(id_arrays: list[list[int]], *, is_array: bool) -> GatewayError:
    with pytest.raises(ClientError) as caught:
        texts_of(id_arrays, is_array=is_array)
    return caught.value


def test_the_ranges_hold_every_token_and_nothing_else():
    held = [token_id for first, last in TOKEN_ID_RANGES for token_id in range(first, last + 1)]
    assert held == [*range(NUM_RANKS), *SPECIAL_TOKENS]


@pytest.mark.parametrize("token_id", GOOD)
def test_every_token_at_a_boundary_has_a_text(token_id):
    (text,) = texts_of([[token_id]], is_array=False)
    assert text


@pytest.mark.parametrize("token_id", BAD)
def test_an_id_that_is_no_token_is_refused_by_place(token_id):
    error = refusal([[15339], [15339, token_id]], is_array=True)
    assert (error.status, error.type, error.param, error.code) == (400, "invalid_request_error", "input", "invalid_value")
    assert error.message.startswith("Invalid 'input[1]': the integer at position 1 is not a token of cl100k_base")


def test_the_one_array_of_a_single_input_is_called_input():
    assert refusal([[-1]], is_array=False).message.startswith("Invalid 'input': the integer at position 0 ")


def test_the_special_tokens_have_their_published_texts():
    assert texts_of([[100257], [100258], [100259], [100260], [100276]], is_array=True) == [
        "<|endoftext|>",
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
        "<|endofprompt|>",
    ]


def test_broken_utf8_becomes_the_replacement_character():
    assert texts_of([[222], [64, 222, 64]], is_array=True) == ["�", "a�a"]


def test_an_empty_array_is_refused():
    error = refusal([[1], []], is_array=True)
    assert (error.param, error.code) == ("input", "invalid_value")
    assert "input[1]" in error.message


def test_8192_ids_are_an_input_and_8193_are_too_long():
    assert texts_of([[64] * 8192], is_array=False) == ["a" * 8192]
    error = refusal([[64], [64] * 8193], is_array=True)
    assert (error.status, error.type, error.param) == (400, "invalid_request_error", "input")
    assert error.code == "context_length_exceeded"
    told = "maximum input length is 8192 tokens. The maximum context length is 8192 tokens."
    assert error.message == f"Invalid 'input[1]': {told}"


def test_300_000_ids_are_a_request_and_one_more_is_too_long():
    arrays = [[64] * 8000 for _ in range(37)] + [[64] * 4000]
    assert sum(map(len, texts_of(arrays, is_array=True))) == 300_000
    error = refusal([*arrays, [64]], is_array=True)
    assert (error.status, error.type, error.param) == (400, "max_tokens_per_request", None)
    assert error.code == "max_tokens_per_request"
    assert error.message == "Requested 300001 tokens, max 300000 tokens per request"
