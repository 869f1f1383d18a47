"""The ranges of a model on this machine: measured over held-out texts, and the same on every machine and in every precision."""

from dataclasses import replace
from string import ascii_lowercase

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models

from gateway.embedding.quantization import quantize, ranges_of
from gateway.engine import artifact
from gateway.engine.calibration import TEXTS, bound_of, ranges_within, round_up
from gateway.engine.fidelity import PROBES
from gateway.engine.tokenizer import Tokenizer
from gateway.testing.fakes import FakeEncoder
from gateway.tests.engine.conftest import embedded, local_of

MINILM_ID = "a7d941b0bf87788e"  # indexes of int8 vectors of the built-in model carry it


class NoisyEncoder(FakeEncoder):
    """Its rows are scaled, and differ in their last bits from one encoder to the next."""

    def __init__(self, *, noise=0.0, scale=1.0, **more):
        super().__init__(**more)
        self.noise, self.scale = noise, scale

    def embed(self, windows):
        return (super().embed(windows) * np.float32(self.scale) * np.float32(1 + self.noise)).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer(place):
    return Tokenizer((place / artifact.TOKENIZER).read_text())


def test_the_texts_are_held_out_and_of_many_kinds():
    assert len(TEXTS) == len(set(TEXTS)) >= 48
    assert not set(TEXTS) & set(PROBES)
    assert sum(not text.isascii() for text in TEXTS) >= 8


@given(number=st.floats(1e-6, 1e6))
def test_a_bound_is_rounded_up_to_two_digits(number):
    bound = round_up(number)
    assert number <= bound * (1 + 1e-12)
    assert bound <= number * 1.11
    assert float(f"{bound:.2g}") == pytest.approx(bound)


def test_a_bound_is_that_of_vectors_of_length_one_whatever_their_last_bits(tokenizer):
    first = bound_of(NoisyEncoder(dimensions=8, max_tokens=32), tokenizer)
    assert 0.5 < first <= 1
    for noise, scale in ((1e-6, 1), (-1e-6, 1), (0, 100), (0, 1e-3)):
        assert bound_of(NoisyEncoder(dimensions=8, max_tokens=32, noise=noise, scale=scale), tokenizer) == first


def test_texts_of_which_a_model_reads_no_token_are_left_out():
    """A vocabulary of English letters alone drops all others, and no special tokens remain of such a text."""
    letters = FastTokenizer(models.BPE({letter: number for number, letter in enumerate(ascii_lowercase)}, []))
    assert letters.encode(TEXTS[-5]).ids == []
    assert 0.5 < bound_of(NoisyEncoder(dimensions=8, max_tokens=32), Tokenizer(letters.to_str())) <= 1
    snowman = FastTokenizer(models.BPE({"☃": 0}, []))
    assert bound_of(NoisyEncoder(dimensions=8, max_tokens=32), Tokenizer(snowman.to_str())) is None


def test_a_score_and_a_vector_of_zeros_have_no_ranges(tokenizer):
    reranker = NoisyEncoder(dimensions=1, max_tokens=32)
    reranker.info = replace(reranker.info, network=msgspec.structs.replace(reranker.info.network, kind="reranker"))
    assert bound_of(reranker, tokenizer) is None
    assert bound_of(NoisyEncoder(dimensions=8, max_tokens=32, scale=0), tokenizer) is None
    assert bound_of(NoisyEncoder(dimensions=8, max_tokens=32, scale=float("nan")), tokenizer) is None
    assert ranges_within(None, 8) is None


async def test_the_built_in_models_ranges_are_these_in_either_runtime(loaded):
    ranges = loaded.describe().ranges
    assert ranges.id == MINILM_ID
    assert (np.abs(ranges.array) == np.abs(ranges.array[0, 0])).all()
    rows, _ = await embedded(loaded, "A text that nobody has measured: 13 herons, one lake.", "?", "日本の冬", "x" * 500)
    codes = quantize(rows, "int8", ranges)
    cosines = (codes @ rows.T.astype(np.float64)).diagonal() / np.linalg.norm(codes.astype(float), axis=1)
    assert cosines.min() > 0.999


async def test_every_precision_has_the_same_ranges(small_model, place):
    found = {}
    for precision in ("float32", "bfloat16"):
        local = local_of(small_model, precision=precision)
        await local.start()
        found[precision] = local.describe().ranges
        await local.close()
    assert found["float32"] == found["bfloat16"]
    bound = artifact.read(place).proof.bound
    assert found["float32"] == ranges_of(np.full(32, -bound), np.full(32, bound))
