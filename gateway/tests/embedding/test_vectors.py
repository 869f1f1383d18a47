"""Joining, cutting and normalising, each against a slow and obvious loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.embedding.vectors import join_windows, normalize_rows, scale_to_unit, truncate

numbers = st.floats(-1e4, 1e4, width=32, allow_subnormal=False).filter(lambda number: number == 0 or abs(number) > 1e-4)


def rows_of(num_rows: int, dimensions: int | None = None):
    shape = st.just((num_rows, dimensions)) if dimensions else st.integers(1, 6).map(lambda d: (num_rows, d))
    return arrays.arrays(np.float32, shape, elements=numbers)


rows = st.integers(1, 6).flatmap(rows_of)


@st.composite
def windowed(draw):
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    weights = draw(st.lists(st.integers(0, 300), min_size=sum(counts), max_size=sum(counts)))
    return draw(rows_of(sum(counts))), counts, weights


def slowly_normalized(row: list[float]) -> list[float]:
    length = math.sqrt(sum(number * number for number in row))
    return [number / length if length else 0.0 for number in row]


def slowly_joined(windows: list[list[float]], counts: list[int], weights: list[int]) -> list[list[float]]:
    means = []
    for count in counts:
        mine, windows = windows[:count], windows[count:]
        shares, weights = [max(1, weight) for weight in weights[:count]], weights[count:]
        weighted = [[share * number for number in window] for share, window in zip(shares, mine, strict=True)]
        means.append([sum(column) / sum(shares) for column in zip(*weighted, strict=True)])
    return means


@given(rows=rows)
def test_normalised_rows_have_length_one_and_their_direction(rows):
    unit = normalize_rows(rows)
    assert (unit.shape, unit.dtype) == (rows.shape, np.float32)
    np.testing.assert_allclose(unit, [slowly_normalized(row) for row in rows.tolist()], rtol=1e-5, atol=1e-6)


def test_a_zero_vector_stays_zero_and_finite():
    zeros = np.zeros((2, 3), dtype=np.float32)
    assert np.array_equal(normalize_rows(zeros), zeros)
    assert np.array_equal(truncate(zeros, 2, normalize=True), zeros[:, :2])


@given(given_windows=windowed())
def test_windows_are_averaged_by_their_token_counts(given_windows):
    windows, counts, weights = given_windows
    means = join_windows(windows, counts=counts, weights=weights)
    assert (means.shape, means.dtype) == ((len(counts), windows.shape[1]), np.float32)
    np.testing.assert_allclose(means, slowly_joined(windows.tolist(), counts, weights), rtol=1e-4, atol=1e-2)


@given(given_windows=windowed())
def test_an_input_of_one_window_keeps_its_row_bit_for_bit(given_windows):
    windows, counts, weights = given_windows
    means = join_windows(windows, counts=counts, weights=weights)
    starts = [sum(counts[:index]) for index in range(len(counts))]
    for index, (start, count) in enumerate(zip(starts, counts, strict=True)):
        if count == 1:
            assert means[index].tobytes() == windows[start].tobytes()


def test_one_window_among_long_inputs_is_untouched():
    windows = np.array([[0.1, 0.2], [1, 3], [3, 1], [0.7, 1e-30]], dtype=np.float32)
    means = join_windows(windows, counts=[1, 2, 1], weights=[7, 3, 1, 7])
    assert means[[0, 2]].tobytes() == windows[[0, 3]].tobytes()
    assert means[1].tolist() == [1.5, 2.5]


@given(rows=rows, share=st.floats(0, 1))
def test_a_cut_keeps_the_first_components_at_length_one(rows, share):
    dimensions = max(1, round(share * rows.shape[1]))
    shortened = truncate(rows, dimensions, normalize=True)
    assert shortened.dtype == np.float32
    expected = [slowly_normalized(row[:dimensions]) for row in rows.tolist()] if dimensions < rows.shape[1] else rows
    np.testing.assert_allclose(shortened, expected, rtol=1e-5, atol=1e-6)


@given(rows=rows)
def test_without_normalising_a_cut_changes_no_number(rows):
    for dimensions in range(1, rows.shape[1] + 1):
        assert np.array_equal(truncate(rows, dimensions, normalize=False), rows[:, :dimensions])


@pytest.mark.parametrize("normalize", [True, False])
def test_the_native_size_changes_no_bit(normalize):
    rows = np.array([[3, 4, 12]], dtype=np.float32)
    assert truncate(rows, None, normalize=normalize).tobytes() == truncate(rows, 3, normalize=normalize).tobytes() == rows.tobytes()


def test_rows_of_length_1_stay_bit_for_bit_when_others_are_made_so():
    rows = normalize_rows(np.random.default_rng(5).normal(size=(4, 384)).astype(np.float32))
    np.testing.assert_array_equal(scale_to_unit(rows), rows)
    mixed = rows * np.array([[1], [3], [1], [0]], dtype=np.float32)
    made = scale_to_unit(mixed)
    np.testing.assert_array_equal(made[[0, 2]], rows[[0, 2]])
    np.testing.assert_allclose(made[1], rows[1], rtol=1e-6)
    np.testing.assert_array_equal(made[3], 0)
    assert made.dtype == np.float32


@given(rows_of(3, 6))
def test_a_layer_norm_before_the_cut_is_torchs_own(rows):
    expected = torch.nn.functional.layer_norm(torch.from_numpy(rows), (6,))[:, :4]
    np.testing.assert_allclose(truncate(rows, 4, normalize=False, layer_norm=True), expected.numpy(), rtol=1e-3, atol=1e-3)
    assert truncate(rows, 6, normalize=True, layer_norm=True) is rows  # the whole vector is what the model gave
