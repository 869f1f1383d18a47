"""How far two models' vectors are apart."""

import numpy as np

from gateway.embedding.drift import measure_drift

RANDOM = np.random.default_rng(7)
ROWS = RANDOM.standard_normal((64, 32)).astype(np.float32)


def test_the_same_vectors_at_any_length_have_not_moved():
    drift = measure_drift(ROWS, 3 * ROWS)
    assert drift.is_interchangeable
    assert (round(drift.mean_cosine, 6), round(drift.worst_cosine, 6), drift.kept) == (1.0, 1.0, 1.0)


def test_one_vector_that_moved_is_seen():
    moved = ROWS.copy()
    moved[5] = -moved[5]
    drift = measure_drift(ROWS, moved)
    assert not drift.is_interchangeable
    assert round(drift.worst_cosine, 6) == -1.0
    assert drift.mean_cosine > 0.95


def test_neighbours_that_changed_are_counted():
    noisy = ROWS + 0.3 * RANDOM.standard_normal(ROWS.shape).astype(np.float32)
    assert 0.3 < measure_drift(ROWS, noisy).kept < 1


def test_other_dimensions_have_no_cosine_and_may_keep_their_neighbours():
    drift = measure_drift(ROWS, np.concatenate([ROWS, np.zeros((64, 8), np.float32)], axis=1))
    assert (drift.worst_cosine, drift.mean_cosine, drift.kept) == (None, None, 1.0)
    assert not drift.is_interchangeable


def test_a_zero_vector_is_no_division_by_zero():
    zero = ROWS.copy()
    zero[0] = 0
    assert measure_drift(ROWS, zero).worst_cosine == 0
    same = measure_drift(zero, 2 * zero)  # a sparse encoder has no weight for some text, before and after
    assert same.is_interchangeable
    assert round(same.worst_cosine, 6) == 1
