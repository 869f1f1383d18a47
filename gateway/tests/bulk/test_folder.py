"""A folder of files is one input."""

import gzip
import json
import os
from pathlib import Path

import pyarrow.parquet
import pytest

from gateway.errors import OperatorError
from gateway.testing.fakes import FakeEmbedder
from gateway.tests.bulk.conftest import Company, broken, embedded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of Parquet, one within another folder, and what Spark leaves beside them."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(["a.parquet", "b.parquet", "sub/c.parquet"]):
        first = 1500 * number
        columns = {
            "id": pyarrow.array(range(first, first + 1500), pyarrow.int32()),
            "text": [f"text {row}" if row % 1000 else "" for row in range(first, first + 1500)],
            "when": pyarrow.array(range(1500), pyarrow.timestamp("ms", tz="UTC")),
            "tags": pyarrow.array([[row % 3, None] for row in range(1500)], pyarrow.list_(pyarrow.int16())),
            "kind": pyarrow.array(["x", "y", None] * 500).dictionary_encode(),
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / name, row_group_size=700)
    for name in ("_SUCCESS", ".a.parquet.crc", "README.md"):
        (folder / name).write_text("x")
    return folder


async def test_a_folder_of_parquet_is_one_input_and_its_columns_go_along_with_their_types(folder, tmp_path, capsys):
    output = tmp_path / "out.parquet"
    await broken(folder, output, after=1, keep="all")
    embedder = Company()
    done = await embedded(embedder, folder, output, keep="all")
    assert embedder.num_embedded == 2
    assert "passed over, whose names show no such format: README.md" in capsys.readouterr().err
    assert (done.row, done.num_vectors, done.num_rejected) == (4500, 4495, 5)
    found, source = pyarrow.parquet.read_table(output), pyarrow.parquet.read_table(folder / "a.parquet")
    assert found.schema.names == ["id", "embedding", "text", "when", "tags", "kind"]
    for name in ("when", "tags", "text"):
        assert found.schema.field(name).type == source.schema.field(name).type
    kept = [row for row in range(4500) if row % 1000]
    assert found["id"].to_pylist() == kept
    assert found["text"].to_pylist() == [f"text {row}" for row in kept]
    assert found["kind"].to_pylist() == [["x", "y", None][row % 1500 % 3] for row in kept]
    assert [row[0] for row in found["tags"].to_pylist()] == [row % 1500 % 3 for row in kept]
    rejected = [json.loads(line) for line in (tmp_path / "out.parquet.rejected.jsonl").read_text().splitlines()]
    assert [(each["row"], each["id"], each["file"]) for each in rejected] == [
        (0, 0, "a.parquet"), (1000, 1000, "a.parquet"), (2000, 2000, "b.parquet"), (3000, 3000, "sub/c.parquet"),
        (4000, 4000, "sub/c.parquet"),
    ]  # fmt: skip


async def test_a_folder_of_several_formats_is_one_input_and_files_that_do_not_join_are_refused(tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "a.csv").write_text("id,text\n1,a\n2,b,c\n")
    (folder / "b.jsonl").write_text('{"id": 3, "text": "d"}\n')
    (folder / "c.json").write_text('[{"id": 4, "text": "e"}]')
    (folder / "d.tsv.gz").write_bytes(gzip.compress(b"text\tid\nf\t5\n"))
    await embedded(FakeEmbedder(), folder, tmp_path / "a.parquet", keep="text")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert (table["id"].to_pylist(), table["text"].to_pylist()) == ([1, 3, 4, 5], ["a", "d", "e", "f"])
    (folder / "e.csv").write_text("text\ng\n")
    with pytest.raises(OperatorError, match=r"e\.csv has no column for its ids, and .*a\.csv has 'id': --id names one"):
        await embedded(FakeEmbedder(), folder, tmp_path / "b.npy")
    assert (await embedded(FakeEmbedder(), folder, tmp_path / "b.npy", numbered=True)).num_vectors == 5
    (folder / os.fsdecode(b"c\xff\x1b.json")).write_text('[{"id": 4, "text": "e"}, 5]')
    (folder / "f.csv").write_text("id,text\n1\n")
    (folder / "e.csv").unlink()
    (tmp_path / "c").mkdir()
    await embedded(FakeEmbedder(), folder, tmp_path / "c" / "a.npy")
    rejected = [json.loads(line) for line in (tmp_path / "c" / "a.npy.rejected.jsonl").read_text().splitlines()]
    assert [(each["file"], each.get("line")) for each in rejected] == [("a.csv", 3), ("c\\xff\x1b.json", None), ("f.csv", 2)]
    with pytest.raises(OperatorError, match="is in the folder that is read"):
        await embedded(FakeEmbedder(), folder, folder / "out.npy")
