"""A request's windows, there and back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.calls.packing import pack, unpack
from gateway.embedding.embedder import Inputs
from gateway.engine.encoder import Window
from gateway.engine.preprocessor import Windows

token_ids = st.lists(st.integers(0, 250_000), min_size=1, max_size=9)
windows = st.builds(Window, token_ids, st.integers(0, 9), num_query_tokens=st.integers(0, 9))
inputs = st.lists(st.tuples(st.lists(windows, min_size=1, max_size=3), st.integers(0, 2047)), min_size=1, max_size=5)


@given(inputs, st.booleans(), st.booleans(), st.sampled_from(["", "query", "document"]))
def test_what_was_packed_is_unpacked(inputs, is_array, has_positions, task):
    flat = [replace(window, task=task) for group, _ in inputs for window in group]
    work = Windows(flat, [len(group) for group, _ in inputs], [len(window) for window in flat])
    positions = tuple(position for _, position in inputs) if has_positions else None
    asked = Inputs([""] * len(inputs), is_array=is_array, caller="a", deadline=0, positions=positions)
    array = pack(asked, work)
    assert array.dtype == np.int32
    packed = unpack(array)
    assert (packed.work, packed.is_array, packed.positions) == (work, is_array, positions)


def test_an_array_that_is_cut_short_is_refused():
    asked = Inputs([""], is_array=True, caller="a", deadline=0)
    array = pack(asked, Windows([Window([1, 2, 3])], [1], [3]))
    with pytest.raises(ValueError, match="no parcel"):
        unpack(array[:-1])
    array[4] = 9
    with pytest.raises(ValueError, match="names no task"):
        unpack(array)
