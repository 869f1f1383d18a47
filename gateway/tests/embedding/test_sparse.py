"""Sparse rows have the weights that are not zero, and long texts' windows are joined as the model joins tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.embedding.embedder import Vectors
from gateway.embedding.sparse import MAX_TERMS, dense_rows, join_sparse_windows, sparse_row
from gateway.testing.fakes import FakeEmbedder


def whole(row, num_terms=12):
    embedder = FakeEmbedder(dimensions=num_terms)
    embedder.about["kind"] = "sparse_encoder"
    return dense_rows(Vectors(row, row_counts=[len(row)]), embedder.describe())[0]


weights = arrays.arrays(np.float32, 12, elements=st.sampled_from([0.0, 0.0, 0.25, 1.5, 3e-7]))


@given(weights)
def test_a_row_has_each_weight_once_by_term_and_no_zero(row):
    pairs = sparse_row(row)
    assert pairs.dtype == np.float32
    assert pairs[:, 0].tolist() == [term for term, weight in enumerate(row) if weight]
    assert (pairs[:, 1] != 0).all()
    np.testing.assert_array_equal(whole(pairs), row)


def test_a_text_without_weights_has_no_pair():
    assert sparse_row(np.zeros(5, dtype=np.float32)).shape == (0, 2)


def test_the_last_term_of_the_largest_vocabulary_is_exact():
    row = np.zeros(MAX_TERMS, dtype=np.float32)
    row[-1] = 1
    assert int(sparse_row(row)[0, 0]) == MAX_TERMS - 1


@pytest.mark.parametrize(("join", "slowly"), [("max", np.max), ("sum", np.sum)])
@given(st.data())
def test_windows_are_joined_as_dense_rows_would_be(join, slowly, data):
    counts = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    dense = [data.draw(weights) for _ in range(sum(counts))]
    joined = join_sparse_windows([sparse_row(row) for row in dense], counts=counts, join=join)
    starts = np.cumsum([0, *counts])
    for row, start, end in zip(joined, starts, starts[1:], strict=False):
        np.testing.assert_allclose(whole(row), slowly(np.stack(dense[start:end]), axis=0), rtol=1e-6)
        assert (np.diff(row[:, 0]) > 0).all()
