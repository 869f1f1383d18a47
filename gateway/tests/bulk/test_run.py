"""From a file to files: whole, once, and the same whether or not a run was broken."""

import asyncio
import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from gateway.bulk.journal import COMPLETE, REJECTED
from gateway.bulk.options import BulkOptions
from gateway.bulk.run import BulkRun
from gateway.embedding.embedder import Prepared, Vectors
from gateway.embedding.quantization import quantize, ranges_of
from gateway.errors import OperatorError
from gateway.testing.fakes import FakeEmbedder, hashed
from gateway.tests.bulk.conftest import Company, broken, embedded, run_of


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


RANGES = ranges_of([-0.5] * 8, [0.5] * 8)


def ranged(embedder):
    embedder.about = {"ranges": RANGES}
    return embedder


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "binary", "ubinary"])
async def test_every_type_has_the_apis_bytes_in_either_format(lines, tmp_path, dtype):
    rows = np.stack([hashed(f"text number {number}", 8) for number in range(5000)])
    expected = quantize(rows, dtype, RANGES)
    for name in ("a.npy", "a.parquet"):
        await embedded(ranged(FakeEmbedder()), lines, tmp_path / name, dtype=dtype)
    vectors = np.load(tmp_path / "a.npy")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    stored = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    for found in (vectors, stored):
        assert (found.dtype, found.tobytes()) == (expected.dtype, expected.tobytes())
    told = {b"gateway.dtype": dtype.encode(), **({b"gateway.quantization": RANGES.id.encode()} if "int8" in dtype else {})}
    assert told.items() <= table.schema.metadata.items()
    assert (b"gateway.quantization" in table.schema.metadata) is ("int8" in dtype)


@pytest.mark.parametrize("dtype", ["int8", "binary"])
async def test_a_broken_run_of_small_vectors_ends_with_the_bytes_of_an_unbroken_one(lines, tmp_path, dtype):
    await embedded(ranged(Company()), lines, tmp_path / "unbroken.npy", dtype=dtype, dimensions=8)
    await broken(lines, tmp_path / "a.npy", after=1, ranges=RANGES, dtype=dtype)
    with pytest.raises(OperatorError, match=rf"--dtype \({dtype} then, uint8 now\)"):
        await embedded(ranged(Company()), lines, tmp_path / "a.npy", dtype="uint8")
    if dtype == "int8":
        other = Company()
        other.about = {"ranges": ranges_of([-1] * 8, [1] * 8)}
        with pytest.raises(OperatorError, match=r"the ranges of int8 and uint8 \("):
            await embedded(other, lines, tmp_path / "a.npy", dtype=dtype)
    await embedded(ranged(Company()), lines, tmp_path / "a.npy", dtype=dtype)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "unbroken.npy").read_bytes()


@pytest.mark.parametrize(("about", "options"), [({}, {}), ({"ranges": RANGES}, {"dimensions": 4})])
async def test_a_type_without_ranges_is_refused_by_the_options_name(lines, tmp_path, about, options):
    embedder = FakeEmbedder()
    embedder.about = about
    with pytest.raises(OperatorError, match=r"'--dtype'.*quantization_ranges"):
        await embedded(embedder, lines, tmp_path / "a.npy", dtype="int8", **options)
    assert embedder.num_embedded == 0


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


async def test_requests_of_a_batch_are_rows(tmp_path):
    request = '{"custom_id": "%s", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": %s}}\n'
    path = tmp_path / "batch.jsonl"
    path.write_text(request % ("a", '"one"') + request % ("b", '["two"]') + request % ("c", '["three", "four"]'))
    done = await embedded(FakeEmbedder(), path, tmp_path / "out.npy")
    assert (done.num_vectors, done.num_rejected) == (2, 1)
    assert (tmp_path / "out.npy.ids.jsonl").read_text() == '"a"\n"b"\n'
    assert "is a list, not a string" in (tmp_path / "out.npy.rejected.jsonl").read_text()
