"""Which vectors these are, and what changed when they are others."""

from dataclasses import fields, replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.embedding.fingerprint import Fingerprint, changes, digest

PRINT = Fingerprint(*(letter * 64 for letter in "abcde"), runtime="torch-float32")
TOLD = {
    "weights": "weights or configuration",
    "tokenizer": "tokenizer",
    "pooling": "pooling",
    "prompts": "prompts",
    "long_input": "long-input rule",
    "runtime": "runtime or precision",
}


def test_a_fingerprint_is_written_part_after_part():
    assert str(PRINT) == "aaaaaaaa" + "bbbb" + "cccc" + "dddd" + "eeee" + ".torch-float32"


def test_every_part_is_told_by_a_name():
    assert list(TOLD) == [field.name for field in fields(Fingerprint)]


@pytest.mark.parametrize("parts", [parts for size in range(len(TOLD) + 1) for parts in combinations(TOLD, size)])
def test_exactly_the_parts_that_differ_are_named(parts):
    other = replace(PRINT, **{part: "0" * 64 if part != "runtime" else "openvino-bfloat16" for part in parts})
    assert changes(str(PRINT), str(other)) == [TOLD[part] for part in TOLD if part in parts]


@pytest.mark.parametrize("pinned", ["", "x", "a" * 23 + ".torch-float32", "a" * 25 + ".torch-float32", "torch-float32"])
def test_what_is_no_fingerprint_differs_as_a_whole(pinned):
    assert changes(pinned, str(PRINT)) == ["the whole model"]
    assert changes(str(PRINT), pinned) == ["the whole model"]


@given(pinned=st.text(), found=st.text())
def test_something_changed_exactly_when_they_are_not_the_same(pinned, found):
    assert bool(changes(pinned, found)) == (pinned != found)
    assert changes(pinned, pinned) == []


def test_a_digest_tells_contents_apart_and_not_their_order_in_a_table():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    told_apart = [("ab",), ("a", "b"), ({"a": 1},), ({"a": "1"},), (), (None,), ("",)]
    assert len({digest(*contents) for contents in told_apart}) == len(told_apart)
