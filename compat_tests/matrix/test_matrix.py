"""The matrix: every client, from a program of its own, through a witness to the gateway. README.md shows it as a table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import tiktoken

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.matrix.cells import CELLS, CLIENTS, COLUMNS, Client, cell_id
from compat_tests.matrix.conftest import ProgramOf
from compat_tests.matrix.program import Program, Refusal
from compat_tests.matrix.witness import Witness, witness_of
from compat_tests.process import Gateway
from compat_tests.standin import RATE_LIMITED
from compat_tests.texts import MARKER, MODEL, SAMPLES, many
from compat_tests.truth import Truth, assert_close, shortened

TEXT = SAMPLES["plain"]
TEXTS = many(40)  # more than Haystack's 32
NAME_OF_OPENAI = "text-embedding-3-small"  # an alias of ours. Some clients know `dimensions` only of models with such a name
FEWER = 128
TIMEOUT_SECONDS, DELAY_SECONDS, PATIENCE_SECONDS = 0.4, 1.2, 60


@dataclass(frozen=True, slots=True)
class Cell:
    client: Client
    program: Program
    gateway: Gateway
    truth: Truth

    def ask(self, witness: Witness, given: Any, *, model: str = MODEL, key: str = ENVIRONMENT_KEY, **how: Any) -> Any:
        return self.program.ask(base_url=witness.base_url, key=key, model=model, input=given, **how)

    def witness(self, *canned: Any, **how: Any) -> Any:
        return witness_of(self.gateway.port, *canned, **how)

    def true_vectors(self, texts: list[str]) -> Any:
        return self.truth.vectors([self.client.sends(text) for text in texts])

    def assert_raises(self, column: str, answer: Any, *words: str) -> None:
        assert isinstance(answer, Refusal), "it raised nothing"
        assert answer.name == self.client.errors[column], answer
        for each in words:
            assert each in answer.message
        if column.isdigit():
            assert answer.status == int(column)


def try_string(cell: Cell) -> None:
    with cell.witness() as witness:
        assert_close(vectors(cell.ask(witness, TEXT)), cell.true_vectors([TEXT]))
        assert witness.statuses == [200]


def try_list(cell: Cell) -> None:
    with cell.witness() as witness:
        assert_close(vectors(cell.ask(witness, TEXTS)), cell.true_vectors(TEXTS))
        assert sum(len(exchange.embeddings) for exchange in witness.seen) == len(TEXTS)


def try_token_ids(cell: Cell) -> None:
    texts = TEXTS[:3]
    encoding = tiktoken.get_encoding("cl100k_base")
    ids = [encoding.encode(text) for text in texts]
    with cell.witness() as witness:
        assert_close(vectors(cell.ask(witness, texts if cell.client.tokenises else ids)), cell.truth.vectors(texts))
        assert [exchange.sent["input"] for exchange in witness.seen] == [ids]


def try_base64(cell: Cell) -> None:
    assert_format(cell, "base64", str)


def try_float(cell: Cell) -> None:
    assert_format(cell, "float", list)


def assert_format(cell: Cell, name: str, kind: type) -> None:
    with cell.witness() as witness:
        answer = cell.ask(witness, TEXTS[:3], options={"encoding_format": name})
        assert_close(vectors(answer), cell.true_vectors(TEXTS[:3]))
        assert {exchange.sent["encoding_format"] for exchange in witness.seen} == {name}
        assert {type(each) for exchange in witness.seen for each in exchange.embeddings} == {kind}


def try_dimensions(cell: Cell) -> None:
    with cell.witness() as witness:
        answer = cell.ask(witness, TEXTS[:3], model=NAME_OF_OPENAI, options={"dimensions": FEWER})
        assert_close(vectors(answer), shortened(cell.true_vectors(TEXTS[:3]), FEWER))
        assert {exchange.sent["dimensions"] for exchange in witness.seen} == {FEWER}


def try_unicode(cell: Cell) -> None:
    texts = list(SAMPLES.values())
    with cell.witness() as witness:
        assert_close(vectors(cell.ask(witness, texts)), cell.true_vectors(texts))


def try_401(cell: Cell) -> None:
    with cell.witness() as witness:
        cell.assert_raises("401", cell.ask(witness, "a", key=f"sk-{MARKER}-wrong"), "Incorrect API key provided")
        assert witness.statuses == [401]  # nothing is tried again


def try_404(cell: Cell) -> None:
    with cell.witness() as witness:
        cell.assert_raises("404", cell.ask(witness, "a", model="no-such-model"), "The model `no-such-model` does not exist")
        assert witness.statuses == [404]


def try_400(cell: Cell) -> None:
    with cell.witness() as witness:
        cell.assert_raises("400", cell.ask(witness, ["a", ""]), "input cannot be an empty string")
        assert witness.statuses[-1] == 400
        assert witness.statuses.count(400) == 1


def try_429_then_200(cell: Cell) -> None:
    with cell.witness(RATE_LIMITED) as witness:
        assert_close(vectors(cell.ask(witness, TEXTS[:2])), cell.true_vectors(TEXTS[:2]))
        assert witness.statuses == [429, 200]


def try_slow_answer(cell: Cell) -> None:
    with cell.witness(delay_seconds=DELAY_SECONDS) as witness:
        cell.assert_raises("slow answer", cell.ask(witness, TEXTS[:2], timeout_seconds=TIMEOUT_SECONDS))
        answer = cell.ask(witness, TEXTS[:2], timeout_seconds=PATIENCE_SECONDS)
        assert_close(vectors(answer), cell.true_vectors(TEXTS[:2]))


def vectors(answer: Any) -> Any:
    assert not isinstance(answer, Refusal), answer
    return answer


TRIES: dict[str, Callable[[Cell], None]] = {
    "string": try_string,
    "list": try_list,
    "token ids": try_token_ids,
    "base64": try_base64,
    "float": try_float,
    "dimensions": try_dimensions,
    "Unicode": try_unicode,
    "401": try_401,
    "404": try_404,
    "400": try_400,
    "429 then 200": try_429_then_200,
    "slow answer": try_slow_answer,
}


@pytest.mark.parametrize(("client", "column"), CELLS, ids=[cell_id(*cell) for cell in CELLS])
def test_cell(client: Client, column: str, program_of: ProgramOf, gateway: Gateway, truth: Truth) -> None:
    TRIES[column](Cell(client, program_of(client), gateway, truth))


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_client_needs_its_base_url_and_its_key_changed_and_nothing_else(
    client: Client, program_of: ProgramOf, gateway: Gateway, truth: Truth
) -> None:
    """A program written for OpenAI: OpenAI's name of the model, no option, nobody in between."""
    answer = program_of(client).ask(
        base_url=gateway.base_url, key=ENVIRONMENT_KEY, model=NAME_OF_OPENAI, input=["one text", "another"]
    )
    assert_close(vectors(answer), truth.vectors(["one text", "another"]))


def test_matrix_has_no_empty_cell() -> None:
    assert set(TRIES) == set(COLUMNS)
    for client in CLIENTS:
        assert set(client.cannot) <= set(COLUMNS)
        assert all(client.cannot.values())
    reasons = sum(len(client.cannot) for client in CLIENTS)
    assert len(CELLS) + reasons == len(CLIENTS) * len(COLUMNS)
    assert len({cell_id(*cell) for cell in CELLS}) == len(CELLS)
