"""What `gateway embed` reads, a batch reads: other forms than requests a line, by the same readers, in a process of its own."""

import asyncio
import gzip
import json
import random
import re
import sys
import zlib
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from gateway.batches.input_lines import Conversion, request_lines
from gateway.errors import OperatorError
from gateway.testing.fakes import hashed
from gateway.tests.batches.conftest import content, created, ended, line, owner_of, upload
from gateway.wire.batches import InputFormat

TEXTS = ["one", 'two, "quoted"', "drei\nZeilen", "четыре"]


def parquet(**columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


REQUESTS = b"".join(line(f"id-{number}", text, dimensions=4) for number, text in enumerate(TEXTS))
ROWS = b"".join(json.dumps({"id": f"id-{number}", "text": text}).encode() + b"\n" for number, text in enumerate(TEXTS))
CSV = 'id,text\nid-0,one\nid-1,"two, ""quoted"""\nid-2,"drei\nZeilen"\nid-3,четыре\n'
FORMS = {
    "requests.jsonl.gz": gzip.compress(mtime=0, data=REQUESTS),
    "requests.bin": zstd(REQUESTS),
    "requests.json": b"[\n" + b",\n".join(json.dumps(json.loads(each), indent=1).encode() for each in REQUESTS.splitlines()) + b"]",
    "cr.jsonl": REQUESTS.replace(b"\n", b"\r"),
    "utf-16.jsonl": REQUESTS.decode().encode("utf-16"),
    "rows.jsonl": ROWS,
    "rows.txt": b"\xef\xbb\xbf\n" + ROWS,
    "rows.json": b"[" + ROWS.strip().replace(b"\n", b",") + b"]",
    "table.csv": CSV.encode(),
    "table.csv.gz": gzip.compress(mtime=0, data=CSV.encode("utf-16")),
    "table.parquet": parquet(id=[f"id-{number}" for number in range(4)], text=TEXTS),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_that_gateway_embed_reads_is_lines_of_requests(tmp_path, name):
    path = tmp_path / "without-an-ending"
    path.write_bytes(FORMS[name])
    found = [json.loads(each) for each in request_lines(order(path, filename=name)) if each.strip(b"\n\xef\xbb\xbf")]
    assert [each["custom_id"] for each in found] == [f"id-{number}" for number in range(4)]
    assert [each["body"]["input"] for each in found] == TEXTS
    assert [each["body"].get("dimensions") for each in found] == [4 if b"dimensions" in requests_of(name) else None] * 4


def requests_of(name):
    return REQUESTS if name.startswith(("requests", "cr", "utf-16")) else b""


@pytest.mark.parametrize("name", ["requests.jsonl.gz", "rows.txt", "table.csv.gz", "table.parquet"])
async def test_a_batch_reads_what_gateway_embed_reads(gateway, client, name):
    done = await ended(client, await created(client, await upload(gateway, FORMS[name], name=name), model="m"))
    assert done["status"] == "completed", done
    assert done["request_counts"] == {"total": 4, "completed": 4, "failed": 0}
    found = {each["custom_id"]: each["response"]["body"] for each in await content(gateway, done["output_file_id"])}
    assert list(found) == [f"id-{number}" for number in range(4)]
    for text, body in zip(TEXTS, found.values(), strict=True):
        expected = hashed(text, 8)[: 4 if requests_of(name) else 8]
        assert np.allclose(body["data"][0]["embedding"], expected / np.linalg.norm(expected), atol=1e-6)
    files = gateway.generation.files
    async with asyncio.timeout(10):
        while await files.list(done["id"]):  # nothing stays that only the work needed
            await asyncio.sleep(0.01)
    assert {each.purpose for each in await files.list(await owner_of(gateway))} == {"batch", "batch_output"}


@pytest.mark.parametrize(
    ("name", "asked", "sent"),
    [
        ("a.csv", {"column": "body", "id": "url", "delimiter": ";"}, "url;body\nx;one\ny;two\n"),
        ("a.dat", {"format": "tsv", "column": "body", "id": "url"}, "url\tbody\nx\tone\ny\ttwo\n"),
        ("a.jsonl", {"column": "body", "id": "url"}, '{"body": "one", "url": "x"}\n{"body": "two", "url": "y", "n": NaN}\n'),
    ],
)
def test_a_files_form_may_be_told(tmp_path, name, asked, sent):
    path = tmp_path / name
    path.write_text(sent)
    found = [json.loads(each) for each in request_lines(order(path, asked=asked))]
    assert [(each["custom_id"], each["body"]["input"]) for each in found] == [("x", "one"), ("y", "two")]


async def test_a_row_without_a_text_fails_alone_and_one_without_an_id_has_its_lines_number(gateway, client):
    sent = b'text,title\n"one",a\n,b\n"three",c,d\nfour,e\n'
    done = await ended(client, await created(client, await upload(gateway, sent, name="rows.csv"), model="m"))
    assert done["status"] == "completed", done
    assert done["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    assert [each["custom_id"] for each in await content(gateway, done["output_file_id"])] == ["2", "5"]
    wrong = [(each["custom_id"], each["response"], each["error"]) for each in await content(gateway, done["error_file_id"])]
    assert [(custom_id, response, error["code"]) for custom_id, response, error in wrong] == [
        ("3", None, "invalid_row"), ("4", None, "invalid_row"),
    ]  # fmt: skip
    assert "'text' is empty" in wrong[0][2]["message"]
    assert "3 fields, and the header 2" in wrong[1][2]["message"]


@pytest.mark.parametrize(
    ("name", "sent", "more", "code", "said"),
    [
        ("a.csv", b"url;text\nx;y\n", {"model": "m"}, "invalid_file", "input_format.delimiter ';'"),
        ("a.csv", b"id,text\na,x\na,y\n", {"model": "m"}, "duplicate_custom_id", "'a'"),
        ("a.csv", b"text\nx\n", {}, "missing_required_parameter", "'body.model'"),
        ("a.csv", b"text\n", {"model": "m"}, "empty_file", "empty"),
        ("a.jsonl.gz", gzip.compress(mtime=0, data=b'{"custom_id": "a"}\n'), {}, "missing_required_parameter", "'method'"),
    ],
)
async def test_what_cannot_be_read_fails_and_the_reason_is_said(gateway, client, name, sent, more, code, said):
    done = await ended(client, await created(client, await upload(gateway, sent, name=name), **more))
    assert done["status"] == "failed", done
    [error] = done["errors"]["data"]
    assert (error["code"], said in error["message"]) == (code, True), error
    assert str(gateway.generation.files.storage.folder) not in error["message"]


@pytest.mark.parametrize(
    ("name", "sent", "more", "said"),
    [
        ("a.csv", b"body\nx\n", {}, "has no column 'text'; it has body"),
        ("a.csv", b"text\nx\n", {"asked": {"format": "parquet"}}, "no Parquet"),
        ("a.jsonl.gz", gzip.compress(mtime=0, data=REQUESTS)[:-20], {}, "cut off"),
        ("a.jsonl", b'{"id": "a", "text": "x"}', {"endpoint": "/v1/rerank"}, "/v1/embeddings alone"),
        ("a.txt", b"x\n", {"asked": {"column": "y"}}, "--column"),
        ("a.zip", b"PK\x03\x04 and more", {"asked": {"format": "csv"}}, "zip archive"),
        ("a.jsonl", ROWS, {"asked": {"delimiter": ";"}}, "are for CSV and TSV"),
    ],
)
def test_a_file_that_no_reader_takes_is_refused(tmp_path, name, sent, more, said):
    path = tmp_path / name
    path.write_bytes(sent)
    with pytest.raises(OperatorError, match=re.escape(said)):
        list(request_lines(order(path, **more)))


@pytest.mark.parametrize(
    "asked",
    [{"format": "xlsx"}, {"column": ""}, {"column": 5}, {"no_id": "yes"}, {"delimiter": "x" * 300}, "csv"],
)
async def test_a_form_that_is_none_is_refused(client, asked):
    body = {"input_file_id": "file-x", "endpoint": "/v1/embeddings", "completion_window": "24h", "input_format": asked}
    reply = await client.post("/v1/batches", json=body)
    assert (reply.status_code, reply.json()["error"]["param"].partition(".")[0]) == (400, "input_format")


def order(path, **more):
    asked = InputFormat(**more.pop("asked", {}))
    endpoint = more.get("endpoint", "/v1/embeddings")
    return Conversion(str(path), more.get("filename", path.name), endpoint, asked, max_rows=1000, max_bytes=10_000_000)


@pytest.mark.parametrize("make", ["gzip", "zstd", "parquet"])
def test_a_small_file_that_unpacks_to_a_large_one_is_refused_before_it_fills_anything(tmp_path, make):
    made = {
        "gzip": lambda: zlib.compress(bytes(50_000_000), 9, wbits=31),
        "zstd": lambda: zstd(bytes(50_000_000)),
        "parquet": lambda: parquet(text=pa.array(["x" * 1_000_000] * 1000).dictionary_encode()),
    }[make]()
    path = tmp_path / f"bomb.{make}"
    path.write_bytes(made)
    asked = {} if make == "parquet" else {"format": "jsonl"}
    with pytest.raises(OperatorError, match="more than 10,000,000 bytes"):
        list(request_lines(order(path, asked=asked)))


@pytest.mark.parametrize("name", FORMS)
def test_no_damage_to_a_file_has_another_end_than_lines_or_a_reason(tmp_path, name):
    """Bytes that are changed at random. In this process: a parser that crashed would take the test with it."""
    dice = random.Random(name)
    path = tmp_path / name
    for _ in range(10):
        sent = bytearray(FORMS[name])
        for _ in range(dice.randint(1, 8)):
            at = dice.randrange(len(sent))
            sent[at : at + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
        path.write_bytes(sent)
        with suppress(OperatorError):
            for each in request_lines(order(path)):
                assert each.endswith(b"\n")
                assert each.count(b"\n") == 1


async def test_a_file_that_ends_its_reader_ends_nothing_else(gateway, client, monkeypatch):
    monkeypatch.setattr("gateway.batches.conversion.COMMAND", (sys.executable, "-c", "import os; os.abort()"))
    with capture_logs() as seen:
        done = await ended(client, await created(client, await upload(gateway, b"text\nx\n", name="a.csv"), model="m"))
    assert (done["status"], done["errors"]["data"][0]["code"]) == ("failed", "invalid_file")
    assert [each["batch"] for each in seen if each["event"] == "batch_conversion_failed"] == [done["id"]]
