"""Columns of the input go along with their types."""

import json

import pyarrow.parquet
import pytest

from gateway.errors import OperatorError
from gateway.testing.fakes import FakeEmbedder
from gateway.tests.bulk.conftest import embedded


async def test_kept_columns_of_json_get_types_that_hold_their_values(tmp_path):
    rows = [
        {"text": "a", "int": 1, "float": 1, "bool": True, "mixed": 1, "nested": {"a": [1]}, "large": 2**60, "embedding": 5},
        {"text": "", "int": "rejected", "new": "rejected"},
        {"text": "b", "int": None, "float": 0.5, "mixed": "1", "nested": None, "large": 0.5, "row": "x", "huge": 10**40},
        {"text": "c", "float": float("nan"), "int": -(2**63)},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    await embedded(FakeEmbedder(), tmp_path / "a.jsonl", tmp_path / "a.parquet", keep="all")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    types = {field.name: str(field.type) for field in table.schema if field.name != "embedding"}
    assert types == {
        "row": "int64", "text": "string", "int": "int64", "float": "double", "bool": "bool", "mixed": "string", "nested": "string",
        "large": "string", "input_embedding": "int64", "input_row": "string", "huge": "string",
    }  # fmt: skip
    assert table["int"].to_pylist() == [1, None, -(2**63)]
    assert table["mixed"].to_pylist() == ["1", "1", None]
    assert table["nested"].to_pylist() == ['{"a": [1]}', None, None]
    assert table["large"].to_pylist() == [str(2**60), "0.5", None]
    assert table["huge"].to_pylist() == [None, str(10**40), None]
    assert table["float"].to_pylist()[:2] == [1.0, 0.5]
    with pytest.raises(OperatorError, match=r"--keep: .* holds vectors alone"):
        await embedded(FakeEmbedder(), tmp_path / "a.jsonl", tmp_path / "a.npy", keep="all")
    with pytest.raises(OperatorError, match="has no column 'nowhere'"):
        await embedded(FakeEmbedder(), tmp_path / "a.jsonl", tmp_path / "b.parquet", keep="int,nowhere")


async def test_a_row_whose_kept_column_could_not_be_kept_as_it_is_is_rejected(tmp_path):
    lines = [
        '{"text": "a", "x": 1}',
        '{"text": "b", "x": 1, "x": 2}',
        '{"text": "c", "x": {"y": 1, "y": 2}}',
        '{"text": "d", "x": "\\ud800"}',
        '{"text": "e", "x": ' + "[" * 200 + "]" * 200 + "}",
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    done = await embedded(FakeEmbedder(), tmp_path / "a.jsonl", tmp_path / "a.parquet", keep="x")
    assert (done.num_vectors, done.num_rejected) == (1, 4)
    assert (await embedded(FakeEmbedder(), tmp_path / "a.jsonl", tmp_path / "b.parquet")).num_vectors == 5
