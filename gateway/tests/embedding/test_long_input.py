"""Long texts are cut into windows, by one of three rules."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import LongInput
from gateway.embedding.long_input import windows

num_tokens = st.integers(0, 5000)
max_tokens = st.integers(1, 600)


@given(num_tokens=num_tokens, max_tokens=max_tokens)
def test_chunks_cover_every_token_once_and_in_order(num_tokens, max_tokens):
    tokens = list(range(num_tokens))
    cut = [tokens[window] for window in windows(num_tokens, max_tokens=max_tokens, rule="chunk")]
    assert [token for window in cut for token in window] == tokens
    assert all(len(window) <= max_tokens for window in cut)
    assert all(len(window) == max_tokens for window in cut[:-1])


@given(num_tokens=num_tokens, max_tokens=max_tokens)
def test_the_end_is_cut_off_and_the_first_window_kept(num_tokens, max_tokens):
    tokens = list(range(num_tokens))
    (window,) = windows(num_tokens, max_tokens=max_tokens, rule="end")
    assert tokens[window] == tokens[:max_tokens]


@given(num_tokens=num_tokens, max_tokens=max_tokens)
def test_a_refused_text_has_no_windows(num_tokens, max_tokens):
    assert bool(windows(num_tokens, max_tokens=max_tokens, rule="error")) == (num_tokens <= max_tokens)


@pytest.mark.parametrize("rule", get_args(LongInput))
@pytest.mark.parametrize("num_tokens", [0, 1, 253, 254])
def test_no_rule_changes_a_text_that_fits(rule, num_tokens):
    assert windows(num_tokens, max_tokens=254, rule=rule) == [slice(0, num_tokens)]


def test_one_token_too_many_is_a_window_of_its_own():
    assert windows(255, max_tokens=254, rule="chunk") == [slice(0, 254), slice(254, 255)]
