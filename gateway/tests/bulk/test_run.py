"""From a file to files: whole, once, and the same whether or not a run was broken."""

import asyncio
import gzip
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from gateway.bulk.journal import COMPLETE, REJECTED
from gateway.bulk.options import BulkOptions
from gateway.bulk.run import BulkRun
from gateway.embedding.embedder import Prepared, Vectors
from gateway.errors import OperatorError, Overloaded
from gateway.testing.fakes import FakeEmbedder, hashed
from gateway.tests.bulk.conftest import Company, embedded, run_of


async def broken(input: Path, output: Path, *, after: int, **options: object) -> None:  # noqa: A002
    """A run that ends when `after` shards are embedded, and with it what was done of the next."""

    class Breaking(Company):
        async def embed(self, prepared: Prepared) -> Vectors:
            if self.num_embedded == after:
                raise Overloaded
            return await super().embed(prepared)

    with pytest.raises(OperatorError, match="still fails"):
        await embedded(Breaking(), input, output, patience_seconds=0, **options)


async def test_vectors_and_ids_stand_in_the_inputs_order(lines, tmp_path):
    done = await embedded(FakeEmbedder(), lines, tmp_path / "a.npy")
    assert (done.num_vectors, done.num_rejected, done.row) == (5000, 0, 5000)
    vectors = np.load(tmp_path / "a.npy")
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.stack([hashed(f"text number {number}", 8) for number in range(5000)]))
    assert (tmp_path / "a.npy.ids.jsonl").read_text() == "".join(f"{number}\n" for number in range(5000))
    assert {path.name for path in tmp_path.iterdir()} == {"some.txt", "a.npy", "a.npy.ids.jsonl"}


async def test_parquet_has_ids_vectors_and_the_fingerprint(tmp_path):
    rows = [{"name": f"n{number}", "body": f"text {number}"} for number in range(10)]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {"name": 7, "body": 1}, {"name": 7, "body": "x"}])
    )
    done = await embedded(
        FakeEmbedder(), tmp_path / "a.jsonl", tmp_path / "a.parquet", column="body", id_column="name", dimensions=4
    )
    assert (done.num_vectors, done.num_rejected) == (11, 1)
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 4)
    assert table["id"].to_pylist() == [*(row["name"] for row in rows), "7"]
    assert table.schema.metadata == {b"gateway.model": b"m", b"gateway.fingerprint": FakeEmbedder().fingerprint.encode()}
    assert json.loads((tmp_path / "a.parquet.rejected.jsonl").read_text()) == {
        "row": 10, "id": 7, "reason": "its 'body' is a number, not a string", "line": 11,
    }  # fmt: skip


async def test_row_numbers_are_integers_in_parquet(lines, tmp_path):
    await embedded(FakeEmbedder(), lines, tmp_path / "a.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.schema.field("row").type == pyarrow.int64()
    assert table["row"].to_pylist() == list(range(5000))


@pytest.mark.parametrize("name", ["a.npy", "a.parquet"])
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_broken_run_that_is_gone_on_with_ends_with_the_bytes_of_an_unbroken_one(lines, tmp_path, name, after):
    await embedded(Company(), lines, tmp_path / f"unbroken{name}")
    await broken(lines, tmp_path / name, after=after)
    assert not (tmp_path / name).exists()
    embedder = Company()
    await embedded(embedder, lines, tmp_path / name)
    assert embedder.num_embedded == 3 - after
    assert (tmp_path / name).read_bytes() == (tmp_path / f"unbroken{name}").read_bytes()


@pytest.mark.parametrize("in_flight", [1, 2, 3])
async def test_so_many_shards_as_asked_are_in_the_embedders_hands(lines, tmp_path, in_flight):
    class Watched(FakeEmbedder):
        num_inside, most, are_all_here = 0, 0, asyncio.Event()

        async def embed(self, prepared: Prepared) -> Vectors:
            self.num_inside += 1
            self.most = max(self.most, self.num_inside)
            if self.num_inside == in_flight:
                self.are_all_here.set()
            await asyncio.wait_for(self.are_all_here.wait(), 60)
            await asyncio.sleep(0)
            self.num_inside -= 1
            return await super().embed(prepared)

    embedder = Watched()
    await embedded(embedder, lines, tmp_path / "a.npy", in_flight=in_flight)
    assert embedder.most == in_flight
    assert np.load(tmp_path / "a.npy").shape == (5000, 8)


async def test_another_job_is_refused_and_says_what_differs(lines, tmp_path):
    output = tmp_path / "a.npy"
    await broken(lines, output, after=1)
    other = FakeEmbedder(fingerprint="f" * 23 + "0.fake-float32")
    with pytest.raises(OperatorError, match=r"the model's vectors \(long-input rule changed\)"):
        await embedded(other, lines, output)
    with pytest.raises(OperatorError, match=r"the dimensions \(8 then, 4 now\).*--restart throws it away"):
        await embedded(Company(), lines, output, dimensions=4)
    with pytest.raises(OperatorError, match=r"--input-type \(none then, query now\)"):
        await embedded(Company(), lines, output, input_type="query")
    content = lines.read_bytes()
    lines.write_bytes(b"T" + content[1:])
    with pytest.raises(OperatorError, match="the input file was changed"):
        await embedded(Company(), lines, output)
    done = await embedded(Company(), lines, output, restart=True, dimensions=4)
    assert np.load(output).shape == (done.num_vectors, 4) == (5000, 4)


async def test_an_input_that_changes_while_it_is_read_makes_no_output(lines, tmp_path):
    class Meddling(FakeEmbedder):
        async def embed(self, prepared):
            with lines.open("a") as file:
                file.write("more\n")
            return await super().embed(prepared)

    with pytest.raises(OperatorError, match="was changed while it was read"):
        await embedded(Meddling(), lines, tmp_path / "a.npy")
    assert not (tmp_path / "a.npy").exists()


async def test_an_output_that_exists_is_only_replaced_when_asked_and_when_all_is_done(lines, tmp_path):
    output = tmp_path / "a.npy"
    output.write_bytes(b"precious")
    (tmp_path / "a.npy.rejected.jsonl").write_bytes(b"old")
    with pytest.raises(OperatorError, match=r"exists: --overwrite replaces it"):
        await embedded(FakeEmbedder(), lines, output)
    assert not (tmp_path / "a.npy.unfinished").exists()
    with pytest.raises(OperatorError, match="no room"):
        await embedded(FakeEmbedder(fails_with="no room"), lines, output, overwrite=True)
    assert output.read_bytes() == b"precious"
    await embedded(FakeEmbedder(), lines, output, overwrite=True)
    assert np.load(output).shape == (5000, 8)
    assert not (tmp_path / "a.npy.rejected.jsonl").exists()


@pytest.mark.parametrize("num_moved", [0, 1, 2, 3])
async def test_a_process_that_ends_among_the_last_moves_leaves_the_rest_to_the_next(tmp_path, num_moved):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": ""}\n')
    output = tmp_path / "a.npy"
    run = BulkRun(BulkOptions(input=path, output=output), run_of(FakeEmbedder(), path, output).model)
    moves = list(run.output.moves.items())
    run.output.publish = lambda journal: journal.close()  # the process ends here
    await run.to_end()
    assert (run.journal.folder / COMPLETE).exists()
    for name, target in moves[:num_moved]:
        (run.journal.folder / name).replace(target)
    embedder = FakeEmbedder()
    done = await embedded(embedder, path, output)
    assert embedder.num_embedded == 0
    assert (done.num_vectors, done.num_rejected) == (1, 1)
    assert np.load(output).shape == (1, 8)
    assert {each.name for each in tmp_path.iterdir()} == {"a.jsonl", "a.npy", "a.npy.ids.jsonl", f"a.npy.{REJECTED}"}


@pytest.mark.parametrize("name", ["a.npy", "a.parquet"])
async def test_an_input_without_rows_makes_an_output_without_rows(tmp_path, name):
    (tmp_path / "a.txt").write_bytes(b"")
    done = await embedded(FakeEmbedder(), tmp_path / "a.txt", tmp_path / name)
    assert (done.num_vectors, done.row) == (0, 0)
    if name == "a.npy":
        assert np.load(tmp_path / name).shape == (0, 8)
    else:
        assert pyarrow.parquet.read_table(tmp_path / name).num_rows == 0


async def test_what_cannot_work_is_refused_before_anything_is_done(lines, tmp_path):
    (tmp_path / "some").mkdir()
    refused = {
        "does not exist": (tmp_path / "none.txt", tmp_path / "a.npy", {}),
        "holds no file of a known format": (tmp_path / "some", tmp_path / "a.npy", {"form": "text"}),
        "is no file, and no pipe either": (Path("/dev/null"), tmp_path / "a.npy", {"form": "text"}),
        "ends in .parquet or .npy": (lines, tmp_path / "a.csv", {}),
        "there is no folder": (lines, tmp_path / "nowhere" / "a.npy", {}),
        "text lines have no columns": (lines, tmp_path / "a.npy", {"column": "body"}),
        "the model's vectors have 8": (lines, tmp_path / "a.npy", {"dimensions": 9}),
    }
    for words, (input_path, output, options) in refused.items():
        with pytest.raises(OperatorError, match=words):
            await embedded(FakeEmbedder(), input_path, output, **options)
    assert {path.name for path in tmp_path.iterdir()} == {"some.txt", "some"}


async def test_content_and_not_the_time_it_was_written_decides_whether_an_input_changed(lines, tmp_path):
    await broken(lines, tmp_path / "a.npy", after=1)
    content = lines.read_bytes()
    lines.unlink()
    lines.write_bytes(content)
    os.utime(lines, ns=(1, 1))
    embedder = Company()
    await embedded(embedder, lines, tmp_path / "a.npy")
    assert embedder.num_embedded == 2
    about = lines.stat()
    await broken(lines, tmp_path / "b.npy", after=1)
    lines.write_bytes(content[:-2] + b"X\n")  # far behind what was read, and by its times the same
    os.utime(lines, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(OperatorError, match="the input file was changed"):
        await embedded(Company(), lines, tmp_path / "b.npy")


async def test_an_input_that_is_touched_while_it_is_read_is_the_same_input(lines, tmp_path):
    class Touching(FakeEmbedder):
        async def embed(self, prepared):
            os.utime(lines)
            return await super().embed(prepared)

    assert (await embedded(Touching(), lines, tmp_path / "a.npy")).num_vectors == 5000


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_a_broken_run_over_a_compressed_input_goes_on_as_over_a_plain_one(lines, tmp_path, compression):
    await embedded(Company(), lines, tmp_path / "plain.npy")
    packed = tmp_path / "some.txt.gz"  # the name is none of zstd's
    content = lines.read_bytes()
    packed.write_bytes(gzip.compress(content) if compression == "gzip" else pyarrow.compress(content, codec="zstd", asbytes=True))
    await broken(packed, tmp_path / "a.npy", after=2)
    embedder = Company()
    await embedded(embedder, packed, tmp_path / "a.npy")
    assert embedder.num_embedded == 1
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_a_compressed_input_that_was_cut_off_or_damaged_is_told_and_makes_no_output(tmp_path, compression):
    content = "".join(f"text {hashed(str(number), 8)}\n" for number in range(3000)).encode()
    packed = gzip.compress(content) if compression == "gzip" else pyarrow.compress(content, codec="zstd", asbytes=True)
    middle = len(packed) // 2
    damaged = packed[:middle] + b"\xff" * 40 + packed[middle + 40 :] if compression == "gzip" else packed + b"no frame of zstd"
    for wrong, words in {packed[:-9]: "it was cut off", damaged: "is damaged: its compressed data are wrong"}.items():
        (tmp_path / "a.txt").write_bytes(wrong)
        with pytest.raises(OperatorError, match=words):
            await embedded(FakeEmbedder(), tmp_path / "a.txt", tmp_path / "a.npy", restart=True)
        assert not (tmp_path / "a.npy").exists()


def pipe(path: Path, content: bytes) -> threading.Thread:
    """A named pipe, and who writes into it."""
    if not path.exists():
        os.mkfifo(path)
    thread = threading.Thread(target=path.write_bytes, args=(content,))
    thread.start()
    return thread


async def test_what_comes_through_a_pipe_can_be_gone_on_with_when_the_same_comes_again(lines, tmp_path):
    content, fifo, output = lines.read_bytes(), tmp_path / "fifo", tmp_path / "a.npy"
    await embedded(Company(), lines, tmp_path / "plain.npy")
    writer = pipe(fifo, content)

    class Breaking(Company):
        async def embed(self, prepared: Prepared) -> Vectors:
            if self.num_embedded == 2:
                raise Overloaded
            return await super().embed(prepared)

    with pytest.raises(OperatorError, match="still fails"):
        await embedded(Breaking(), fifo, output, form="text", patience_seconds=0)
    writer.join()
    writer = pipe(fifo, content + b"more\n")
    with pytest.raises(OperatorError, match="the input file was changed"):
        await embedded(Company(), fifo, output, form="text")
    writer.join()
    writer, embedder = pipe(fifo, content), Company()
    await embedded(embedder, fifo, output, form="text")
    writer.join()
    assert embedder.num_embedded == 1
    assert output.read_bytes() == (tmp_path / "plain.npy").read_bytes()
    assert not (tmp_path / "a.npy.unfinished").exists()


async def test_a_run_that_waits_for_a_pipe_can_be_stopped(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    run = run_of(FakeEmbedder(), tmp_path / "fifo", tmp_path / "a.npy", form="text")
    task = asyncio.create_task(run.to_end())
    while not (run.journal.folder / "input.new").exists():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]


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
    assert "passed over, whose names tell no such format: README.md" in capsys.readouterr().err
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
    with pytest.raises(OperatorError, match="is in the folder that is read"):
        await embedded(FakeEmbedder(), folder, folder / "out.npy")


async def test_an_input_column_id_is_the_id_and_keeps_its_type(tmp_path):
    contents = {
        "integers.csv": (b"id,text\n1,a\n2,b\n", "id", [1, 2], "int64"),
        "zeros.csv": (b"id,text\n007,a\n2,b\n", "id", ["007", "2"], "string"),
        "large.csv": (b"id,text\n%d,a\n2,b\n" % 10**40, "id", [str(10**40), "2"], "string"),
        "integers.jsonl": (b'{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n', "id", [1, 2], "int64"),
        "strings.jsonl": (b'{"id": "1", "text": "a"}\n{"id": "2", "text": "b"}\n', "id", ["1", "2"], "string"),
        "none.csv": (b"key,text\n1,a\n2,b\n", "row", [0, 1], "int64"),
        "none.jsonl": (b'\n{"text": "a"}\n\n{"text": "b"}\n', "row", [0, 1], "int64"),
    }
    for name, (content, column, ids, kind) in contents.items():
        (tmp_path / name).write_bytes(content)
        await embedded(FakeEmbedder(), tmp_path / name, tmp_path / f"{name}.parquet")
        table = pyarrow.parquet.read_table(tmp_path / f"{name}.parquet")
        assert table.schema.names == [column, "embedding"], name
        assert (table[column].to_pylist(), str(table[column].type)) == (ids, kind), name
    await embedded(FakeEmbedder(), tmp_path / "zeros.csv", tmp_path / "zeros.npy")
    assert (tmp_path / "zeros.npy.ids.jsonl").read_text() == '"007"\n"2"\n'


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


async def test_texts_that_were_chunked_or_cut_are_counted_and_listed(tmp_path):
    class Short(FakeEmbedder):
        async def prepare(self, inputs):
            prepared = await super().prepare(inputs)
            return replace(prepared, is_long=[count > 2 for count in prepared.token_counts])

    (tmp_path / "a.csv").write_text("id,text\nx,one\ny,one two three\n")
    done = await embedded(Short(), tmp_path / "a.csv", tmp_path / "a.npy", report=True)
    assert (done.num_chunked, done.num_cut) == (1, 0)
    assert json.loads((tmp_path / "a.npy.report.jsonl").read_text()) == {
        "row": 1, "id": "y", "tokens": 3, "treatment": "chunked", "line": 3,
    }  # fmt: skip
    done = await embedded(Short(), tmp_path / "a.csv", tmp_path / "a.npy", overwrite=True, long_input="end")
    assert (done.num_chunked, done.num_cut) == (0, 1)
    assert not (tmp_path / "a.npy.report.jsonl").exists()


async def test_an_unfinished_run_is_forgotten_with_restart_and_its_input_may_then_be_another(lines, tmp_path):
    await broken(lines, tmp_path / "a.npy", after=1)
    lines.write_text("one\n")
    assert (await embedded(FakeEmbedder(), lines, tmp_path / "a.npy", restart=True)).row == 1


async def test_options_that_no_format_of_the_input_heeds_are_refused(lines, tmp_path):
    for options, words in {
        ("delimiter", ";"): "--delimiter and --quote are for CSV and TSV",
        ("quote", "none"): "--delimiter and --quote are for CSV and TSV",
        ("encoding", "rot13"): "is no encoding of texts",
        ("encoding", "nonsense"): "is no encoding of texts",
        ("id_column", "id"): "text lines have no columns",
        ("keep", "id"): "text lines have no columns",
    }.items():
        with pytest.raises(OperatorError, match=words):
            await embedded(FakeEmbedder(), lines, tmp_path / "a.parquet", **dict([options]))
    (tmp_path / "a.csv").write_text("id,text\n")
    for options in (
        {"delimiter": ",,"},
        {"quote": "''"},
        {"delimiter": "\n"},
        {"delimiter": '"'},
        {"id_column": "id", "numbered": True},
    ):
        with pytest.raises(OperatorError, match=r"^--(delimiter|quote|id)"):
            await embedded(FakeEmbedder(), tmp_path / "a.csv", tmp_path / "a.npy", **options)
    assert not (tmp_path / "a.npy.unfinished").exists()
