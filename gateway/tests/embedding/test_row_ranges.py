"""`quantization_ranges` in all its forms, and every wrong one by name."""

import gc
import json

import numpy as np
import pytest

from gateway.config import ModelRow
from gateway.embedding.quantization import Ranges, ranges_of
from gateway.embedding.row_ranges import MAX_REPEATED, read_ranges
from gateway.errors import ConfigurationError

PAIRS = [[-1, 1], [-0.5, 0.5], [0, 2]]
RANGES = ranges_of([-1, -0.5, 0], [1, 0.5, 2])


def read(setting):
    return read_ranges(ModelRow(name="m", quantization_ranges=setting))


def test_a_row_without_the_setting_has_none():
    assert read(None).of(3) is None


def test_one_pair_is_for_vectors_of_any_length():
    ranges = read([-0.25, 0.5])
    assert ranges.of(2) == ranges_of([-0.25] * 2, [0.5] * 2)
    assert ranges.of(384).dimensions == 384


def test_a_pair_asked_for_every_length_keeps_a_few():
    def num_ranges():
        gc.collect()
        return sum(type(each) is Ranges for each in gc.get_objects())

    ranges, before = read([-0.25, 0.5]), num_ranges()
    for dimensions in range(1, 4 * MAX_REPEATED):
        assert ranges.of(dimensions).dimensions == dimensions
    assert num_ranges() <= before + MAX_REPEATED
    assert not ranges.by_dimensions


def test_a_list_of_pairs_is_for_vectors_of_its_length():
    assert read(PAIRS).of(3) == RANGES
    assert read(PAIRS).of(2) is None


@pytest.mark.parametrize("form", ["npy", "json"])
def test_a_file_holds_the_same(form, tmp_path):
    path = tmp_path / f"ranges.{form}"
    if form == "npy":  # sentence-transformers' `ranges`: a row of minima, a row of maxima
        np.save(path, np.array(PAIRS, dtype=np.float32).T)
    else:
        path.write_text(json.dumps(PAIRS))
    assert read(str(path)).of(3) == RANGES
    assert read({"3": str(path), "2": [-1, 1]}).of(3) == RANGES


def test_a_table_has_the_ranges_of_several_lengths():
    ranges = read({"3": PAIRS, "2": [-0.25, 0.5]})
    assert ranges.of(3) == RANGES
    assert ranges.of(2) == ranges_of([-0.25] * 2, [0.5] * 2)
    assert ranges.of(1) is None


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ([1, -1], "the smaller one first"),
        ([0, float("inf")], "two finite numbers"),
        ([], "expected"),
        ([1, 2, 3], "expected"),
        ([[1, 2], [3]], "expected"),
        ([[0, 1], 2], "expected"),
        ([[0, 1, 2]], "expected"),
        ({"0": [0, 1]}, "'0' is no number of dimensions"),
        ({"x": [0, 1]}, "'x' is no number of dimensions"),
        ({"02": [0, 1]}, "'02' is no number of dimensions"),
        ({"9999999999": [0, 1]}, "'9999999999' is no number of dimensions"),
        ({"9" * 5000: [0, 1]}, "is no number of dimensions"),
        ([-1e39, 1e39], "two finite numbers"),
        ({"2": PAIRS}, "the ranges of 3 dimensions"),
        ("/nowhere.npy", "cannot be read: No such file"),
    ],
)
def test_what_is_no_range_is_refused_by_name(setting, reason):
    with pytest.raises(ConfigurationError, match=rf"^models\[m\]\.quantization_ranges.*{reason}"):
        read(setting)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'["a", "b"]', b'["-1", "1"]', b"[false, true]", b"[" * 100_000, b"\x93NUMPY", b"[[1e999, 2]]"]
)
@pytest.mark.parametrize("form", ["npy", "json"])
def test_a_broken_file_is_refused_by_name(content, form, tmp_path):
    path = tmp_path / f"ranges.{form}"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"^models\[m\]\.quantization_ranges"):
        read(str(path))


@pytest.mark.parametrize("dtype", ["complex64", "bool", "M8[D]"])
def test_numbers_of_a_file_are_integers_or_floats(dtype, tmp_path):
    np.save(tmp_path / "ranges.npy", np.array([0, 1], dtype=np.int64).astype(dtype))
    with pytest.raises(ConfigurationError, match=r"^models\[m\]\.quantization_ranges: expected"):
        read(str(tmp_path / "ranges.npy"))


def test_objects_in_a_file_are_not_unpickled(tmp_path):
    np.save(tmp_path / "ranges.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ConfigurationError, match="neither a NumPy array nor JSON"):
        read(str(tmp_path / "ranges.npy"))
