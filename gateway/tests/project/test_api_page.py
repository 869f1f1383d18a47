"""docs/api.md tells exactly the fields, headers and errors that the code has."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from gateway import errors
from gateway.api import limit_headers
from gateway.api.models import ModelObject
from gateway.api.response_headers import EVERY
from gateway.config import LongInput, ModelRow
from gateway.embedding.catalog import Model
from gateway.embedding.prompt import DOCUMENT_WORDS, QUERY_WORDS
from gateway.errors import GatewayError, RateLimited
from gateway.testing.fakes import FakeEmbedder
from gateway.wire.foreign_fields import FIELDS
from gateway.wire.request import EmbeddingsBody, EncodingFormat
from gateway.wire.rerank import RerankBody
from gateway.wire.rerank_documents import MAX_DOCUMENTS
from gateway.wire.rerank_fields import FIELDS as RERANK_FIELDS
from gateway.wire.rerank_response import RerankResponse

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
UPSTREAMS_AND_COMMANDS = {"upstream", "cli", "tests", "testing"}  # what is sent to other servers is no part of this API
DECLARED = Path("gateway/api/response_headers.py")
OF_ANY_HTTP = {"content-type", "content-length", "content-encoding"}
HEADER = re.compile(
    r"x-[a-z-]*[a-z]|openai-(version|model|processing-ms)|access-control-(allow|expose|max)-[a-z-]+|(authorization|api-key|retry-after"
    r"|retry-after-ms|server-timing|www-authenticate|allow|vary|cache-control|keep-alive|connection|etag|if-none-match|accept-encoding"
    r"|content-(encoding|security-policy|disposition)|referrer-policy|user-agent|cross-origin-[a-z-]+-policy|location|link|deprecation|sunset)"
)
NO_HEADERS = {"x-gzip"}  # a value of Content-Encoding


def section(heading: str) -> str:
    """What stands under a heading, those below it included."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", PAGE, flags=re.MULTILINE)
    assert found, heading
    return re.split(rf"^#{{1,{len(found[1])}}} ", PAGE[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def rows(heading: str, header: str) -> list[list[str]]:
    """The cells of the table under a heading whose first column is called `header`."""
    _, _, table = section(heading).partition(f"| {header} |")
    lines = table.partition("\n\n")[0].splitlines()[2:]
    assert lines, heading
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@cache
def headers_of_the_code() -> set[str]:
    """Every constant of the code that is a header's name, sent or read."""
    found = {name.decode() for name in (*limit_headers.REQUESTS, *limit_headers.TOKENS)}
    for path in (ROOT / "gateway").rglob("*.py"):
        if not UPSTREAMS_AND_COMMANDS & set(path.relative_to(ROOT).parts) and path.name != DECLARED.name:
            constants = [
                node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)
            ]
            texts = [
                each.decode("latin-1") if isinstance(each, bytes) else each for each in constants if isinstance(each, str | bytes)
            ]
            found |= {text.lower() for text in texts if HEADER.fullmatch(text.lower())}
    return found - NO_HEADERS


def test_the_fields_of_a_request_are_told():
    told = [names(field)[0] for field, *_ in rows("Request", "field")]
    assert sorted(told) == sorted(set(EmbeddingsBody.__struct_fields__) - FIELDS.keys())
    foreign = [name for field, *_ in rows("Fields of other servers", "field") for name in names(field)]
    assert sorted(foreign) == sorted(FIELDS)


def test_the_fields_of_a_rerank_request_are_told():
    told = [names(field)[0] for field, *_ in rows("Rerank request", "field")]
    assert sorted(told) == sorted(set(RerankBody.__struct_fields__) - RERANK_FIELDS.keys())
    foreign = [name for field, *_ in rows("Rerank request", "field of rerank") for name in names(field)]
    assert sorted(foreign) == sorted(RERANK_FIELDS)
    assert f"1 to {MAX_DOCUMENTS:,} texts" in section("Rerank request")
    told = [name.split(".")[0].split("[")[0] for field, *_ in rows("Rerank response", "field") for name in names(field)]
    assert set(told) | {"id", "model"} == set(RerankResponse.__struct_fields__)


@pytest.mark.parametrize(("field", "choices"), [("encoding_format", EncodingFormat), ("long_input", LongInput)])
def test_the_choices_of_a_field_are_told(field, choices):
    [kinds] = [cells[1] for cells in rows("Request", "field") if names(cells[0]) == [field]]
    assert tuple(name.strip('"') for name in names(kinds)) == get_args(choices)


def test_every_rule_for_long_inputs_is_told():
    assert tuple(names(value)[0] for value, *_ in rows("Long inputs", "value")) == get_args(LongInput)


def test_every_word_for_a_purpose_is_told():
    told = [tuple(names(words)) for words, *_ in rows("Prompts", "`input_type`")]
    assert [words for words in told if len(words) > 2] == [QUERY_WORDS, DOCUMENT_WORDS]


def test_the_headers_are_told():
    tables = [*rows("What a client may send", "header"), *rows("What a client gets", "header")]
    told = {name for row in tables for name in names(row[0])}
    assert len(told) > 30
    assert headers_of_the_code() - told - OF_ANY_HTTP == set()
    assert told - headers_of_the_code() == set()
    sent = {name for row in rows("What a client gets", "header") for name in names(row[0])}
    assert sent == {header.name for header in EVERY}  # as /openapi.json declares them


LEAVES = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, GatewayError) and not each.__subclasses__()
]


def test_each_error_is_told_once():
    told = [tuple(names(cell)[0] if "`" in cell else cell for cell in row[:2]) for row in rows("Errors", "status")]
    assert sorted(told) == sorted((str(error.status), error.code or "null") for error in LEAVES)


@pytest.mark.parametrize("error", LEAVES, ids=[error.__name__ for error in LEAVES])
def test_an_error_is_told_with_its_type(error):
    [row] = [row for row in rows("Errors", "status") if names(row[1]) == [error.code or "null"]]
    assert names(row[2]) == (["requests", "tokens"] if error is RateLimited else [error.type])
    assert all(row)


async def test_the_fields_of_a_model_are_told():
    model = Model(ModelRow(name="a", backend="fake"), FakeEmbedder())
    await model.embedder.start()
    told = [names(cell) for cell, *_ in rows("GET /v1/models", "field")]
    assert sorted(name for each in told for name in each) == sorted(ModelObject.__struct_fields__)
