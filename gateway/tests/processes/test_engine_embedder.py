"""What a front makes of an engine process's answers."""

import numpy as np
import pytest

from gateway.calls.message import EmbedResult
from gateway.embedding.embedder import MAX_NUMBERS
from gateway.errors import InvalidValue
from gateway.processes.engine_embedder import vectors_of

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_rows_are_those_of_the_inputs():
    found = vectors_of(EmbedResult(number=1, dimensions=2, stages={}, num_hits=2, num_cached_tokens=7), ROWS.tobytes(), [])
    assert (found.rows.tolist(), found.num_hits, found.num_cached_tokens) == (ROWS.tolist(), 2, 7)


def test_a_repeated_input_has_the_row_of_its_first():
    answer = EmbedResult(number=1, dimensions=2, stages={}, token_counts=[4, 5, 6])
    found = vectors_of(answer, ROWS.tobytes(), [0, 1, 0, 2])
    assert found.rows.tolist() == [[0, 1], [2, 3], [0, 1], [4, 5]]
    assert found.token_counts == [4, 5, 4, 6]


def test_a_repeated_input_has_all_rows_of_its_first():
    answer = EmbedResult(number=1, dimensions=2, stages={}, row_counts=[2, 0, 1])
    found = vectors_of(answer, ROWS.tobytes(), [0, 2, 1, 0])
    assert found.row_counts == [2, 1, 0, 2]
    assert [rows.tolist() for rows in found.by_input()] == [[[0, 1], [2, 3]], [[4, 5]], [], [[0, 1], [2, 3]]]


def test_no_rows_at_all_keep_their_width():
    answer = EmbedResult(number=1, dimensions=2, stages={}, row_counts=[0, 0])
    assert vectors_of(answer, b"", [0, 1, 0]).rows.shape == (0, 2)


def test_repetitions_make_no_reply_larger_than_the_bound():
    rows = np.zeros((MAX_NUMBERS // 4, 2), dtype=np.float32)
    answer = EmbedResult(number=1, dimensions=2, stages={}, row_counts=[len(rows)])
    with pytest.raises(InvalidValue):
        vectors_of(answer, rows.tobytes(), [0, 0, 0])
