"""Estimates are near the truth, and a count is believed only where it can be one."""

from functools import cache

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.estimate import apportion, estimated_tokens, is_honest
from gateway.wire import token_ids

NUM_RANKS = 100_256

TEXTS = {
    "English": "The quick brown fox jumps over the lazy dog, and a gateway tells how many tokens that was.",
    "German": "Der schnelle braune Fuchs springt über den faulen Hund, und das Tor zählt mit.",
    "Russian": "Быстрая коричневая лиса прыгает через ленивую собаку, и шлюз считает слова.",
    "Chinese": "敏捷的棕色狐狸跳过了懒狗,网关会告诉我们用了多少个词元。",
    "Japanese": "素早い茶色の狐はのろまな犬を飛び越え、ゲートウェイはトークンを数えます。",
    "Arabic": "الثعلب البني السريع يقفز فوق الكلب الكسول والبوابة تحسب الكلمات.",
}


@pytest.mark.parametrize("language", TEXTS)
def test_an_estimate_is_within_a_factor_of_two_of_cl100k(language):
    ids = encoded(TEXTS[language])
    assert 0.5 <= estimated_tokens(TEXTS[language]) / len(ids) <= 2


@cache
def encoding():
    ranks = {token: number for number, token in token_ids.bytes_of_token().items() if number < NUM_RANKS}
    return tiktoken.Encoding("cl100k", pat_str=r"\p{L}+|\p{N}+|\s+|[^\s\p{L}\p{N}]+", mergeable_ranks=ranks, special_tokens={})


def encoded(text):
    """By the gateway's own ranks; a simple division into words will do for an estimate."""
    return encoding().encode(text)


@given(st.text(max_size=200))
def test_every_text_has_an_estimate(text):
    assert estimated_tokens(text) >= 3


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=50), st.integers(0, 100_000))
def test_what_is_shared_out_is_all_of_it_and_nobody_gets_nothing(weights, spare):
    total = len(weights) + spare
    counts = apportion(total, weights)
    assert sum(counts) == total
    assert min(counts) >= 1
    exact = 1 + spare * np.array(weights) / sum(weights)
    assert np.abs(np.array(counts) - exact).max() <= 1


@pytest.mark.parametrize(
    ("num_tokens", "texts"),
    [
        (0, ["a"]),
        (-3, ["a"]),
        (1, ["a", "b"]),  # fewer than inputs
        (10**9, ["a"]),
        (len(TEXTS["English"]), [TEXTS["English"]]),  # characters, as infinity counts by default
    ],
)
def test_a_count_that_cannot_be_one_of_tokens_is_not_believed(num_tokens, texts):
    assert not is_honest(num_tokens, texts)


def test_a_true_count_is_believed():
    for text in TEXTS.values():
        assert is_honest(len(encoded(text)) + 2, [text])
        assert is_honest(estimated_tokens(text), [text])
    assert is_honest(3, ["a"])
    assert is_honest(3, ["abc"])  # three characters and three tokens: nobody can tell, and nothing is lost
