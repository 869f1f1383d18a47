"""Small vectors are sentence-transformers' own, byte for byte; values outside the ranges are clipped."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sentence_transformers.util.quantization import quantize_embeddings

from gateway.embedding.quantization import Ranges, quantize, ranges_of

TYPES = ["int8", "uint8", "binary", "ubinary"]
floats = st.floats(-4, 4, width=32)
rows_of_any_shape = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=floats)


def measured(rows: np.ndarray) -> Ranges:
    return ranges_of(rows.min(axis=0), rows.max(axis=0))


@pytest.mark.parametrize("dtype", TYPES)
@given(rows=rows_of_any_shape, others=rows_of_any_shape)
@example(rows=np.zeros((2, 9), np.float32), others=np.full((1, 9), 3, np.float32))  # a range without width
@example(rows=np.array([[-1, 0], [1, 1e-45]], np.float32), others=np.array([[-0.0, 1e-45], [4, -4]], np.float32))
@settings(max_examples=150, deadline=None)
def test_they_are_sentence_transformers_bytes(dtype, rows, others):
    """The ranges are those of `rows`; `others` may lie outside."""
    others = np.resize(others, (len(others), rows.shape[1]))
    ranges = measured(rows)
    for each in (rows, others):
        with np.errstate(over="ignore"):
            theirs = quantize_embeddings(each, precision=dtype, ranges=ranges.array)
        ours = quantize(each, dtype, ranges)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()


@given(rows=arrays.arrays(np.float32, (3, 5), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_any_finite_number_has_a_code(rows):
    ranges = ranges_of([-0.1] * 5, [0.1] * 5)
    codes = quantize(rows, "int8", ranges)
    assert (codes[rows >= 0.1] == 127).all()
    assert (codes[rows < -0.1] == -128).all()
    assert np.array_equal(quantize(rows, "uint8", ranges).astype(int) - 128, codes)


def test_a_value_outside_its_range_becomes_the_end_and_wraps_around_nowhere():
    ranges = ranges_of([-1, -1, 0], [1, 1, 1])
    assert quantize(np.array([[2, -2, 1e30]], np.float32), "int8", ranges).tolist() == [[127, -128, 127]]
    assert quantize(np.array([[2, -2, -1e30]], np.float32), "uint8", ranges).tolist() == [[255, 0, 0]]


def test_bits_are_packed_highest_first_and_the_last_byte_ends_in_zeros():
    rows = np.array([[1, 0, -1, 0, 0, 0, 0, 2, 3, -3, 1e-45]], np.float32)
    assert quantize(rows, "ubinary").tolist() == [[0b10000001, 0b10100000]]
    assert quantize(rows, "binary").tolist() == [[0b10000001 - 128, 0b10100000 - 128]]


def test_float16_is_rounded_and_too_large_numbers_become_the_largest():
    rows = np.array([[0.1, -1e9, 65520, 1e-9]], np.float32)
    halves = quantize(rows, "float16")
    assert halves.dtype == np.dtype("<f2")
    assert halves.tolist() == [[float(np.float16(0.1)), -65504.0, 65504.0, 0.0]]
    assert quantize(rows, "float") is rows


def test_the_id_of_ranges_is_that_of_their_numbers():
    first = ranges_of([-1, -1], [1, 1])
    assert first == ranges_of(np.array([-1, -1.0]), [1, 1])
    assert len({first.id, ranges_of([-1, -1], [1, 1.0000001]).id, ranges_of([-1, -1, -1], [1, 1, 1]).id}) == 3
    assert first.dimensions == 2


@pytest.mark.parametrize(("low", "high"), [([0], [-1]), ([float("nan")], [1]), ([0], [float("inf")]), ([-3e38], [3e38])])
def test_ranges_that_are_none_are_refused(low, high):
    with pytest.raises(ValueError, match="two finite numbers"):
        ranges_of(low, high)
