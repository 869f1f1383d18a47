"""Our copy of cl100k_base against the published one, and against tiktoken as clients run it."""

import hashlib
import json
import lzma
from importlib import resources
from itertools import chain

import pytest
import tiktoken
import tiktoken.model
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.wire.request import decode
from gateway.wire.token_ids import NUM_RANKS, SPECIAL_TOKENS, bytes_of_token, other_encoding, published_ranks

PUBLISHED_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
# The pattern that tiktoken_ext/openai_public.py publishes for cl100k_base.
PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)
RANKS = [bytes_of_token()[rank] for rank in range(NUM_RANKS)]
ENCODING = tiktoken.Encoding(
    "cl100k_from_our_ranks",
    pat_str=PATTERN,
    mergeable_ranks={rank: number for number, rank in enumerate(RANKS)},
    special_tokens={text.decode(): number for number, text in SPECIAL_TOKENS.items()},
)
TOKEN_IDS = st.one_of(st.integers(0, NUM_RANKS - 1), st.sampled_from(list(SPECIAL_TOKENS)))
SUFFIXES = ["", "-", "x", "-2024-05-13", "mini", "-mini", ":org::id", "base"]


def decoded(ids: list[int]) -> str:
    return decode(json.dumps({"model": "m", "input": [ids]}).encode()).texts[0]


def encoding_by_tiktoken(model: str) -> str | None:
    """The encoding LangChain takes for a model's name, None for cl100k_base: its own default for an unknown name."""
    try:
        name = tiktoken.model.encoding_name_for_model(model)
    except KeyError:
        return None
    return None if name == "cl100k_base" else name


def test_the_packed_ranks_are_the_published_rank_file():
    assert hashlib.sha256(published_ranks()).hexdigest() == PUBLISHED_SHA256


def test_packing_the_ranks_gives_the_packed_file_back():
    shipped = resources.files("gateway.wire").joinpath("cl100k_base.xz").read_bytes()
    assert lzma.decompress(shipped) == bytes(chain.from_iterable((len(rank), *rank) for rank in RANKS))


def test_the_table_holds_the_ranks_and_the_special_tokens_alone():
    assert set(bytes_of_token()) == {*range(NUM_RANKS), *SPECIAL_TOKENS}


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example(text="hello world")
@example(text="<|endoftext|> 👩‍👩‍👧 \r\n\t naïve 你好")
def test_a_text_that_tiktoken_encodes_comes_back_whole(text):
    assert decoded(ENCODING.encode(text, disallowed_special=())) == text


@given(ids=st.lists(TOKEN_IDS, min_size=1, max_size=64))
def test_any_valid_ids_are_decoded_as_tiktoken_decodes_them(ids):
    assert decoded(ids) == ENCODING.decode(ids, errors="replace")


@pytest.mark.parametrize(("model", "encoding"), tiktoken.model.MODEL_TO_ENCODING.items())
def test_every_model_name_of_tiktoken_has_tiktokens_encoding(model, encoding):
    assert other_encoding(model) == (None if encoding == "cl100k_base" else encoding)


@pytest.mark.parametrize("prefix", tiktoken.model.MODEL_PREFIX_TO_ENCODING)
def test_every_model_prefix_of_tiktoken_has_tiktokens_encoding(prefix):
    for name in (prefix + suffix for suffix in SUFFIXES):
        assert other_encoding(name) == encoding_by_tiktoken(name)
        assert other_encoding("my-" + name) == encoding_by_tiktoken("my-" + name)


@given(name=st.one_of(st.text(max_size=20), st.sampled_from([*tiktoken.model.MODEL_TO_ENCODING]).flatmap(
    lambda name: st.sampled_from([name + suffix for suffix in SUFFIXES] + [name[:-1], name.upper(), " " + name])
)))  # fmt: skip
def test_any_other_name_has_tiktokens_encoding_too(name):
    assert other_encoding(name) == encoding_by_tiktoken(name)
