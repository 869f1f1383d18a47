"""Keys: their shape, what is kept of them, and what a message may show."""

import hashlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.access.keys.cached_key import configured_key
from gateway.access.keys.key import NOBODY, Key, candidate_ids, digest_of, mask, new_key, plain_key
from gateway.access.keys.snapshot import parse_keys
from gateway.errors import ConfigurationError


def matches(text, key):
    return configured_key(key).opens_with(digest_of(text), now=0.0)


PLAIN = "a-key-somebody-else-made"  # 24 characters, the fewest


def test_a_new_key_has_the_shape_of_ours():
    text, key = new_key()
    shape = re.fullmatch(r"sk-gw-([0-9A-Za-z]{10})-([0-9A-Za-z]{43})", text)
    assert shape is not None
    assert key == Key(shape[1], hashlib.sha256(text.encode()).digest())


def test_new_keys_differ():
    made = [new_key() for _ in range(100)]
    assert len({text for text, _ in made}) == len({key.public_id for _, key in made}) == 100


def test_a_new_key_is_found_by_the_id_written_in_it_and_matches_itself_alone():
    text, key = new_key()
    assert key.public_id in candidate_ids(text)
    assert matches(text, key)
    assert not matches(text[:-1], key)
    assert not matches(text + "x", key)
    assert not matches(new_key()[0], key)
    assert not matches(text, NOBODY)


def test_a_plain_key_is_known_by_its_digest():
    key = plain_key(PLAIN)
    assert key.public_id == "env-" + hashlib.sha256(PLAIN.encode()).hexdigest()[:8]
    assert candidate_ids(PLAIN) == [key.public_id]
    assert matches(PLAIN, key)


def test_a_key_of_our_shape_may_be_configured_too():
    text, _ = new_key()
    assert plain_key(text).public_id in candidate_ids(text)


@pytest.mark.parametrize(
    "text", ["sk-gw-", "sk-gw--secret", "sk-gw-id-", "sk-gw-i d-secret", pytest.param("x" + new_key()[0], id="after a letter")]
)
def test_what_has_not_our_shape_has_no_id_written_in_it(text):
    assert candidate_ids(text) == [plain_key(text).public_id]


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_presented_text_can_be_looked_up(text):
    assert candidate_ids(text)
    assert not matches(text, NOBODY)


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example(text=new_key()[0])
def test_a_masked_key_shows_nothing_of_its_middle(text):
    shown = mask(text)
    assert shown.isascii()
    assert shown == "***" or (len(text) >= 24 and shown == f"{text[:8]}***{text[-2:]}")


def test_a_masked_key_of_ours_is_as_the_contract_shows_it():
    assert mask("sk-gw-ab12345678-" + "x" * 41 + "yz") == "sk-gw-ab***yz"


def test_configured_keys_are_one_a_line_with_comments_between():
    lines = ["# ours", f"  {PLAIN}  ", "", "sk-gw-" + "y" * 18]
    assert [key.public_id for key in parse_keys(lines, "keys.txt")] == [plain_key(PLAIN).public_id, plain_key(lines[3]).public_id]


@pytest.mark.parametrize(
    "wrong", [PLAIN[:-1], "with a space in the middle", "with-\u00fcmlaut-in-the-middle", "with-a-tab-\t-in-the-middle"]
)
def test_a_configured_key_that_is_not_usable_is_refused_by_its_place_and_not_quoted(wrong):
    with pytest.raises(ConfigurationError, match=r"^key 2 of keys\.txt is not usable: it must be at least 24 ") as caught:
        list(parse_keys([PLAIN, wrong], "keys.txt"))
    assert wrong not in str(caught.value)
