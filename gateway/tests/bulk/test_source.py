"""Rows out of files: every form, every bad row, and from any row on."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bulk.folder import open_input
from gateway.bulk.lines import Lines
from gateway.bulk.row import Position, Row, integer_or_text
from gateway.bulk.shard import MAX_BYTES, MAX_ROWS, shards
from gateway.bulk.source import InputOptions, format_of
from gateway.errors import OperatorError

BEGIN = Position()
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
records = st.lists(st.tuples(texts, texts), max_size=12)


def rows_of(path: Path, start: Position = BEGIN, **options: Any) -> list[Row]:
    source = open_input(path, InputOptions(**options))
    try:
        return list(source.rows(start))
    finally:
        source.close()


def told(rows: list[Row]) -> list[tuple[object, str, bool]]:
    return [(row.id, row.text, row.reason is None) for row in rows]


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_csv(pairs: list[tuple[str, str]], delimiter: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)  # quotes what has a line end in it, and ends records with \r\n
    writer.writerows([("id", "text"), *pairs])
    return out.getvalue()


def as_jsonl(pairs: list[tuple[str, str]]) -> str:
    return "".join(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n" for name, text in pairs)


@settings(deadline=None)
@given(records, st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.parquet"]), st.booleans())
def test_any_texts_come_back_as_they_were_written_and_from_any_row_on(pairs, name, has_bom):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if name == "a.parquet":
            names, values = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            table = pyarrow.table({"text": pyarrow.array(values, pyarrow.string()), "id": pyarrow.array(names, pyarrow.string())})
            pyarrow.parquet.write_table(table, path, row_group_size=3)
        else:
            content = as_jsonl(pairs) if name == "a.jsonl" else as_csv(pairs, "\t" if name == "a.tsv" else ",")
            written(path, (b"\xef\xbb\xbf" if has_bom else b"") + content.encode())
        options = {"quote": '"'} if name == "a.tsv" else {}
        rows = rows_of(path, **options)
        ids = [integer_or_text(row_id) if name in {"a.csv", "a.tsv"} else row_id for row_id, _ in pairs]
        assert told(rows) == [
            (row_id, text, True) if text else (row_id, "", False) for row_id, (_, text) in zip(ids, pairs, strict=True)
        ]
        for row, rest in zip(rows, range(1, len(rows) + 1), strict=True):
            assert rows_of(path, start=row.next, **options) == rows[rest:]


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
)
def test_text_lines_are_texts_and_their_numbers_are_ids(lines, ending):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder) / "a.txt", "".join(line + ending for line in lines))
        if not path.read_bytes().startswith((b"\xff", b"\xfe", b"PK", "\ufeff".encode(), b"\x1f")):
            rows = rows_of(path)
            assert told(rows) == [(None, line, bool(line)) for line in lines]
            assert [row.number for row in rows] == list(range(len(lines)))


BAD_LINES = {
    b"garbage": "it is not JSON",
    b'{"id": 1, "text": NaN}': "its 'text' is a number, not a string",
    b'{"id": 1, "text": "\\ud800"}': "its 'text' has half a surrogate pair, which no text has",
    b'{"id": 1, "text": "a", "text": "b"}': "it has 'text' more than once",
    b'{"id": 1, "id": 1, "text": "a"}': "it has 'id' more than once",
    b'{"id": ' + b"9" * 5000 + b', "text": "a"}': "its 'id' is a number, neither a string nor an integer",
    b'{"id": 1, "text": ' + b"9" * 5000 + b"}": "its 'text' is a number, not a string",
    b'{"id": 1, "text": {"text": "a"}}': "its 'text' is an object, not a string",
    b"[" * 100_000: "it is not JSON",
    b'"a text"': "it is no JSON object",
    b'{"id": 1}': "it has no 'text'",
    b'{"id": 1, "text": null}': "its 'text' is null, not a string",
    b'{"id": 1, "text": ["a"]}': "its 'text' is a list, not a string",
    b'{"id": 1, "text": ""}': "its 'text' is empty",
    b'{"text": "a"}': "it has no 'id'",
    b'{"id": true, "text": "a"}': "its 'id' is a boolean, neither a string nor an integer",
    b'{"id": 1.5, "text": "a"}': "its 'id' is a number, neither a string nor an integer",
    b'{"id": 1, "text": "\xff"}': "it is not UTF-8",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=BAD_LINES.values())
def test_a_bad_line_has_a_reason_and_costs_its_neighbours_nothing(tmp_path, line):
    good = b'{"id": "g", "text": "good"}\n'
    before, bad, after = rows_of(written(tmp_path / "a.jsonl", good + line + b"\n\n" + good))
    assert bad.reason == BAD_LINES[line]
    assert told([before, after]) == [("g", "good", True)] * 2
    assert [(row.number, row.line) for row in (before, bad, after)] == [(0, 1), (1, 2), (2, 4)]


def test_a_line_that_is_too_long_is_passed_over():
    lines = Lines(io.BytesIO(b"a" * 10 + b"\n" + b"b" * 11 + b"\r\n" + b"c" * 5_000_000 + b"\nd"), offset=0, max_bytes=10)
    assert list(lines) == [b"a" * 10 + b"\n", None, None, b"d"]
    assert lines.offset == 11 + 13 + 5_000_001 + 1


def test_bad_records_of_a_table_are_told(tmp_path):
    content = b'id,text\n1,good\n2\n\n3,"un"quoted\n4,\xff\n5,"good\n\xc3\xa9"\n6,"never ends\n'
    rows = rows_of(written(tmp_path / "a.csv", content))
    assert [(row.number, row.text, row.reason) for row in rows] == [
        (0, "good", None),
        (1, "", "it has 1 field, and the header 2"),
        (2, "", "it is not CSV: ',' expected after '\"'"),
        (3, "", "it is not UTF-8"),
        (4, "good\n\u00e9", None),
        (5, "", "it has a quoted field that nothing closes, to the file's end: 1 lines"),
    ]


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(tmp_path):
    row = "1,some text of a row\n"
    content = 'id,text\n1,"never ends\n' + row * (17 * 1024 * 1024 // len(row))
    [row] = rows_of(written(tmp_path / "a.csv", content))
    assert row.reason is not None
    assert row.reason.startswith("it has a quoted field that nothing closes, to the file's end: ")
    first, *rest = rows_of(written(tmp_path / "a.csv", content + '"\n2,after\n'))
    assert first.reason is not None
    assert first.reason.startswith("it is longer than 16 MB: a quoted field of ")
    assert told(rest) == [(2, "after", True)]


def test_bad_rows_of_parquet_are_told(tmp_path):
    bad = pyarrow.array([b"good", None, b"", b"\xff"], pyarrow.binary()).view(pyarrow.string())
    table = pyarrow.table({"id": pyarrow.array([1, 2, 3, 4], pyarrow.int64()), "text": bad})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert [(row.id, row.text, row.reason) for row in rows_of(tmp_path / "a.parquet")] == [
        (1, "good", None),
        (2, "", "its 'text' is null, not a string"),
        (3, "", "its 'text' is empty"),
        (None, "", "it is not UTF-8"),
    ]


WRONG_FILES = {
    "a.csv": (b"a,b\n1,2\n", "has no column 'text'; it has a, b"),
    "b.csv": (b"", "has no column 'text'; it has none"),
    "c.csv": (b'"text\n', "its first record cannot be read"),
    "a.jsonl": ("{'text': 1}".encode("utf-16-le"), "is not UTF-8 but looks like utf-16-le: --encoding utf-16-le reads it"),
    "b.jsonl": (b"\x1f\x8b\x08", "ends before its compressed data do: it was cut off"),
    "c.jsonl": (b"PK\x03\x04", "is a zip archive"),
    "d.csv": (b"PAR1\x15\x04", "is Parquet, and no text: --format parquet"),
    "a.parquet": (b"PAR1 no", "is no Parquet file"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_that_cannot_be_read_at_all_is_refused(tmp_path, name):
    content, words = WRONG_FILES[name]
    with pytest.raises(OperatorError, match=words):
        rows_of(written(tmp_path / name, content))


def test_a_damaged_file_is_told_as_far_as_it_is_whole(tmp_path):
    table = pyarrow.table({"text": [f"text {number}" for number in range(3000)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1000, compression="none", use_dictionary=False)
    group = pyarrow.parquet.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    start = group.column(0).data_page_offset
    content[start : start + 60] = b"\xff" * 60
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(OperatorError, match="is damaged after row 1000, in row group 1"):
        rows_of(tmp_path / "a.parquet")


def test_a_column_of_numbers_is_no_text(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(OperatorError, match="column 'text' is of type int64, not text"):
        rows_of(tmp_path / "a.parquet")


def test_a_name_that_tells_no_format_is_refused():
    with pytest.raises(OperatorError, match="its name does not tell its format"):
        format_of(Path("a.dat.gz"), None)
    assert format_of(Path("a.dat.gz"), "jsonl") == "jsonl"
    assert format_of(Path("a.json.gz"), None) == "json"


@settings(deadline=None)
@given(st.lists(st.integers(1, MAX_BYTES // 2), max_size=30))
def test_where_a_shard_begins_follows_from_the_rows_alone(sizes):
    rows = [Row(number, number, "a" * size, Position(number + 1, number + 1)) for number, size in enumerate(sizes)]
    every = list(shards(iter(rows)))
    assert [row for shard in every for row in shard.rows] == rows
    assert all(len(shard) <= MAX_ROWS and (shard.num_bytes <= MAX_BYTES or len(shard) == 1) for shard in every)
    for number, shard in enumerate(every):
        again = list(shards(iter(rows[shard.next.row :])))
        assert [each.rows for each in again] == [each.rows for each in every[number + 1 :]]


WRONG_GUESSES = {
    ("a.csv", b"id;text\n1;a\n"): "it has id;text (is it separated by ';'? --delimiter ';')",
    ("b.csv", b"id\ttext\n1\ta\n"): "it has id\\ttext (is it separated by 'tab'? --delimiter 'tab')",
    ("a.tsv", b"id,text\n1,a\n"): "it has id,text (is it separated by ','? --delimiter ',')",
    ("b.tsv", b'"id"\t"text"\n'): 'it has "id", "text" (are its fields in quotes? --quote \'"\')',
    ("c.csv", b"'id','text'\n"): "it has 'id', 'text' (are its fields in quotes? --quote \"'\")",
    ("d.csv", b"Id,Text \n"): "it has Id, Text  (is it 'Text '?)",
    ("e.csv", b'"id;""text"""\n'): "it has id;\"text\" (is it separated by ';'? --delimiter ';')",
    ("f.csv", b"id,\x1b[2Jx\n"): "it has id, \\x1b[2Jx",
    ("a.jsonl", b'{"id": 1, "body": "a"}\n{"id": 2, "Text": "a"}\n'): "it has id, body, Text (is it 'Text'?)",
    ("b.jsonl", b'\n{"\\u001b[2J": 1}'): "has no column 'text'; it has \\x1b[2J",
    ("c.jsonl", b'[{"text": "a"},\n{"text": "b"}]'): "holds no JSON objects a line, and begins with '[': --format json?",
    ("a.json", b'[{"body": "a"}]'): "has no column 'text'; it has body",
    ("b.json", b'{\n"text": "a"\n}'): "is neither a JSON array nor an object a line",
    ("c.json", b'[{"text": "a"}, {"text": "b'): "it ends before its array does: was it cut off",
    ("d.json", b'[{"text": "a"}] x'): "it goes on after the end of its array, at byte 15",
    ("g.csv", b"text,text\na,b\n"): "has the column 'text' more than once",
    ("h.csv", "id,text\n1,a\n".encode("utf-16-be")): "looks like utf-16-be: --encoding utf-16-be reads it",
    ("i.csv", b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"no deflate"): "is damaged: its compressed data are wrong",
}


@pytest.mark.parametrize("name", WRONG_GUESSES, ids=lambda name: name[0])
def test_a_wrong_guess_stops_at_once_and_says_what_would_be_right(tmp_path, name):
    with pytest.raises(OperatorError) as raised:
        list(rows_of(written(tmp_path / name[0], name[1])))
    assert WRONG_GUESSES[name] in str(raised.value)
    assert str(raised.value).isprintable()


def test_quotes_that_tsv_takes_as_they_are_are_noted(tmp_path):
    path = written(tmp_path / "a.tsv", b'id\ttext\n1\t"a ""b"" c"\n')
    source = open_input(path, InputOptions())
    assert source.notes == [f"{path} has fields in quotes, which TSV takes as they are: --quote '\"' reads what they hold"]
    assert told(list(source.rows(BEGIN))) == [(1, '"a ""b"" c"', True)]
    source.close()
    assert told(rows_of(path, quote='"')) == [(1, 'a "b" c', True)]


def test_the_separator_that_excel_writes_into_a_first_line_is_taken(tmp_path):
    content = '\ufeffsep=;\r\nid;text\r\n1;"a;b"\r\n'.encode("utf-16-le")
    assert told(rows_of(written(tmp_path / "a.csv", content))) == [(1, "a;b", True)]


def test_an_array_closed_too_early_costs_no_row_in_silence(tmp_path):
    rows = rows_of(written(tmp_path / "a.json", b'[{"text": "a"]}, {"text": "b"}, , 5, {"text": "c"},]'))
    assert [(row.text, row.reason) for row in rows] == [
        ("", "it is not JSON"), ("b", None), ("", "it is not JSON"), ("", "it is no JSON object"), ("c", None),
    ]  # fmt: skip


def request(custom_id: str, given: object) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": given}})


def test_the_requests_of_a_batch_are_rows_if_they_have_one_text_each(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join([request("a", "one"), request("b", ["two"]), request("c", ["x", "y"]), request("d", [1, 2])]))
    found = rows_of(path)
    assert [(row.id, row.text) for row in found[:2]] == [("a", "one"), ("b", "two")]
    assert [(row.id, row.reason) for row in found[2:]] == [(row.id, "its 'text' is a list, not a string") for row in found[2:]]


def test_what_a_batch_answered_is_told_from_what_it_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "output.jsonl"
    path.write_text(json.dumps({"id": "batch_req_1", "custom_id": "a", "response": {"body": {}}, "error": None}))
    with pytest.raises(OperatorError, match="is it what a batch answered"):
        rows_of(path)
