"""No row is lost or changed in silence: what Python's csv and json find in a file is embedded as it stands there, or rejected.

The references are written here, and share no line with the code that is tested.
"""

import asyncio
import csv
import gzip
import io
import json
import string
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bulk.folder import open_input
from gateway.bulk.retry import Patience
from gateway.bulk.row import Position
from gateway.bulk.shard import shards
from gateway.bulk.source import InputOptions
from gateway.bulk.worker import BulkWorker, EmbedOptions
from gateway.testing.fakes import FakeEmbedder, hashed

FEW, MANY = 250, 500  # examples; two thousand of all dialects
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "cp1252"]
MARKED = {"utf-8", "utf-8-sig", "utf-16", "utf-32"}  # what tells itself
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@dataclass(frozen=True)
class Outcome:
    embedded: dict[int, tuple[object, np.ndarray]]
    rejected: dict[int, str]

    @property
    def num_rows(self) -> int:
        assert not self.embedded.keys() & self.rejected.keys()
        return len(self.embedded) + len(self.rejected)


def outcome(name: str, content: bytes, **options: Any) -> Outcome:
    """Every row's, by its number, of a file that was read, cut into shards and embedded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        source = open_input(path, InputOptions(**options))
        worker = BulkWorker(FakeEmbedder(), EmbedOptions(8), in_flight=1, patience=Patience(0))
        embedded: dict[int, tuple[object, np.ndarray]] = {}
        rejected: dict[int, str] = {}
        for shard in shards(source.rows(Position())):
            result = asyncio.run(worker.run(shard))
            rejected |= {each.row: each.reason for each in result.rejected}
            numbers = [row.number for row in shard.rows if row.number not in rejected]
            embedded |= {n: (i, v) for n, i, v in zip(numbers, result.ids, result.vectors, strict=True)}
        source.close()
    return Outcome(embedded, rejected)


def packed(content: bytes, compression: str) -> bytes:
    if compression == "zstd":
        return bytes(pyarrow.compress(content, codec="zstd", asbytes=True))
    return gzip.compress(content, 1) if compression == "gzip" else content


def check(found: Outcome, expected: list[tuple[object, str] | None]) -> None:
    """`expected` has an id and a text for each row that is to be embedded, None for one that is to be rejected."""
    assert found.num_rows == len(expected)
    assert sorted(found.embedded) == [number for number, row in enumerate(expected) if row is not None]
    for number, (row_id, vector) in found.embedded.items():
        right_id, text = expected[number] or (None, "")
        assert row_id == right_id
        np.testing.assert_array_equal(vector, hashed(text, 8))


def csv_records(text: str, delimiter: str, quote: str | None) -> Iterator[list[str] | None]:
    """The rows by Python's csv: their fields where it takes them strictly too, None where it does not. Blank lines are none."""
    lines = list(io.StringIO(text, newline=""))
    dialect = {"delimiter": delimiter, "quotechar": quote} if quote else {"delimiter": delimiter, "quoting": csv.QUOTE_NONE}
    reader, begin = csv.reader(lines, **dialect), 0
    for fields in reader:
        own, begin = lines[begin : reader.line_num], reader.line_num
        try:
            strict: list[str] | None = next(csv.reader(own, strict=True, **dialect))
        except csv.Error:
            strict = None
        if fields:
            yield strict


def integer(field: str) -> object:
    """An integer where writing it gives the field again."""
    is_number = set(field) <= set(string.digits + "-") and field.lstrip("-") and field.rfind("-") < 1
    return int(field) if is_number and str(int(field)) == field and -(2**63) <= int(field) < 2**63 else field


def expected_rows(text: str, delimiter: str, quote: str | None) -> list[tuple[object, str] | None]:
    records = csv_records(text, delimiter, quote)
    names = next(records)
    assert names is not None
    found = []
    for fields in records:
        record = dict(zip(names, fields, strict=True)) if fields is not None and len(fields) == len(names) else {}
        found.append((integer(record["id"]), record["text"]) if record.get("text") else None)
    return found


PIECES = ['"', '"', '""', ",", ";", "\t", "|", "'", "\n", "\r\n", "\r", "\n\n", "\0", " ", "a", "b", "7", "007", "\u00e9", "\\"]
RARE = ["\x0b", "\x0c", "\x1c", "\x1b[31m", "\ufeff", "\u2028", "\x85", "\U0001f600", "id", "NULL"]


@settings(max_examples=2 * MANY, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.sampled_from(RARE)), max_size=30),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(['"', "'", None]),
    st.sampled_from([("id", "text"), ("text", "id", "x"), ("", "id", "x", "text"), ("x", "x", "text", "id")]),
    ENDS,
    st.sampled_from(ENCODINGS),
    st.sampled_from(["", "", "gzip", "zstd"]),
)
def test_every_record_of_any_table_is_embedded_as_it_stands_or_rejected(
    pieces, delimiter, quote, names, end, encoding, compression
):
    text = delimiter.join(names) + end + "".join(pieces)
    content = text.encode(encoding, errors="ignore")
    text = content.decode(encoding)
    is_default = (delimiter, quote) in {(",", '"'), ("\t", None)}
    options = {} if is_default else {"delimiter": delimiter, "quote": quote or "none"}
    encodings = {} if encoding in MARKED else {"encoding": encoding}
    name = "a.tsv" if delimiter == "\t" else "a.csv"
    check(outcome(name, packed(content, compression), **options, **encodings), expected_rows(text, delimiter, quote))


FIELDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=FEW, deadline=None)
@given(st.lists(st.tuples(FIELDS, FIELDS), max_size=8), ENDS, st.booleans())
def test_what_pythons_csv_writes_is_embedded_to_the_letter(pairs, end, is_quoted):
    has_ends = any(char in field for pair in pairs for field in pair for char in "\r\n")  # until Python 3.13 not all were quoted
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL if is_quoted or has_ends else csv.QUOTE_MINIMAL)
    writer.writerows([("id", "text"), *pairs])
    found = outcome("a.csv", out.getvalue().encode())
    check(found, [(integer(row_id), text) if text else None for row_id, text in pairs])


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([10**40, -(10**25), 2**63 - 1, 2**63]),
    st.floats(),
    st.text(max_size=4),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2))
PAIRS = st.lists(st.tuples(st.sampled_from(["id", "id", "text", "text", "x", "meta"]), VALUES), max_size=5)
GARBAGE = [
    "{",
    '{"text": "a"',
    '{"text": "a"} x',
    "nul",
    '"text"',
    '{"text": "a",}',
    "{'text': 'a'}",
    '{"text": "a\tb"}',
    "\x00",
    "[]",
]


def as_object(pairs: list[tuple[str, Any]]) -> str:
    """With keys as often as they are in it."""
    return "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}"


def expected_object(line: str) -> tuple[object, str] | None:
    """By Python's json, but that a key which is needed and repeated has no value."""
    try:
        pairs = json.loads(line, object_pairs_hook=list)
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or any([name for name, _ in pairs].count(name) > 1 for name in ("id", "text")):
        return None
    row_id, text = record.get("id"), record.get("text")
    is_id = isinstance(row_id, int | str) and not isinstance(row_id, bool)
    if (
        not is_id
        or not isinstance(text, str)
        or not text
        or not all(is_unicode(each) for each in (row_id, text) if isinstance(each, str))
    ):
        return None
    return (row_id if isinstance(row_id, str) or -(2**63) <= row_id < 2**63 else str(row_id)), text


def is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


OBJECTS = st.lists(st.one_of(PAIRS.map(as_object), st.sampled_from(GARBAGE)), max_size=8)
FIRST = '{"id": "first", "text": "a first object says which names there are"}'


@settings(max_examples=MANY, deadline=None)
@given(OBJECTS, ENDS, st.sampled_from(["", "\n", "  \r\n"]), st.sampled_from(ENCODINGS[:5]), st.sampled_from(["", "gzip"]))
def test_every_line_of_json_is_embedded_as_it_stands_or_rejected(objects, end, blank, encoding, compression):
    lines = [FIRST, *objects]
    content = "".join(line + end + blank for line in lines).encode(encoding)
    encodings = {} if encoding in MARKED else {"encoding": encoding}
    found = outcome("a.jsonl", packed(content, compression), **encodings)
    check(found, [expected_object(line) for line in lines])


@settings(max_examples=FEW, deadline=None)
@given(
    st.lists(st.one_of(PAIRS.map(as_object), VALUES.map(json.dumps)), max_size=8),
    st.sampled_from([",", " ,\n", "\r\n,\t"]),
    st.sampled_from(ENCODINGS[:5]),
)
def test_every_element_of_a_json_array_is_embedded_as_it_stands_or_rejected(elements, comma, encoding):
    every = [FIRST, *elements]
    content = f" [ {comma.join(every)}\n]\n".encode(encoding)
    assert len(json.loads(content.decode(encoding).removeprefix("\ufeff"))) == len(every)
    encodings = {} if encoding in MARKED else {"encoding": encoding}
    check(outcome("a.json", content, **encodings), [expected_object(each) for each in every])


@settings(max_examples=FEW, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=9), max_size=9), ENDS)
def test_every_line_of_text_is_embedded_as_it_stands_or_rejected(lines, end):
    content = "".join(line + end for line in ["first", *lines])
    found = outcome("a.txt", content.encode())
    check(found, [(number, line) if line else None for number, line in enumerate(["first", *lines])])


@pytest.mark.parametrize("num_bytes", [1, 7, 100])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.txt"])
def test_a_row_is_found_again_from_any_place_however_it_was_compressed_or_encoded(tmp_path, name, num_bytes, monkeypatch):
    monkeypatch.setattr("gateway.bulk.lines.CHUNK_BYTES", num_bytes)
    monkeypatch.setattr("gateway.bulk.json_array.CHUNK_BYTES", num_bytes)
    monkeypatch.setattr("gateway.bulk.encoding.CHUNK_BYTES", num_bytes)
    texts = ["a", 'b "c", \\ d', "é\u2028", "e\r\nf", "", "\U0001f600"]
    table = "id,text\r\n" + "".join('{},"{}"\r\n'.format(n, text.replace('"', '""')) for n, text in enumerate(texts))
    objects = [json.dumps({"id": n, "text": text}) for n, text in enumerate(texts)]
    contents = {"a.csv": table, "a.jsonl": "\n".join(objects), "a.json": f"[{', '.join(objects)}]", "a.txt": "\r".join(texts)}
    for number, content in enumerate([contents[name].encode(), gzip.compress(contents[name].encode("utf-16"))]):
        path = tmp_path / f"{number}{name}"
        path.write_bytes(content)
        source = open_input(path, InputOptions())
        rows = list(source.rows(Position()))
        assert len(rows) >= len(texts)
        for position, row in enumerate(rows):
            assert list(source.rows(row.next)) == rows[position + 1 :]
        source.close()
