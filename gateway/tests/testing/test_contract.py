"""The contract for other people's embedders: one that keeps it passes, and each promise broken is told."""

import numpy as np
import pytest

from gateway.embedding.embedder import Health, Prepared, Vectors
from gateway.testing.contract import ContractBroken, check_embedder
from gateway.testing.fakes import FakeEmbedder


async def test_an_embedder_that_keeps_it_passes_and_is_closed():
    embedder = FakeEmbedder()
    await check_embedder(embedder)
    assert embedder.is_closed


@pytest.mark.parametrize("kind", ["sparse_encoder", "multi_vector_encoder"])
async def test_a_model_may_give_a_text_any_number_of_rows_and_counts_them(kind):
    embedder, wrong = FakeEmbedder(dimensions=64), CountsWrongRows(dimensions=64)
    embedder.about["kind"] = wrong.about["kind"] = kind
    await check_embedder(embedder)
    with pytest.raises(ContractBroken, match="row_counts are None, where 4 texts have rows"):
        await check_embedder(wrong)


class CountsWrongRows(FakeEmbedder):
    async def embed(self, prepared):
        return Vectors((await super().embed(prepared)).rows)


class Wrong(FakeEmbedder):
    """`change` makes something else of its rows, shape (n, 8)."""

    def __init__(self, change=lambda rows: rows, **settings):
        super().__init__(**settings)
        self.change = change

    async def embed(self, prepared):
        return Vectors(self.change((await super().embed(prepared)).rows))


class NeverReady(FakeEmbedder):
    def health(self):
        return Health("loading")


class CountsTooFew(FakeEmbedder):
    async def prepare(self, inputs):
        return Prepared(inputs, [1], [False], "chunk")


class CountsNothing(FakeEmbedder):
    async def prepare(self, inputs):
        return Prepared(inputs, [0] * len(inputs.texts), [False] * len(inputs.texts), "chunk")


BROKEN = {
    "not 'ready'": NeverReady(),
    "fingerprint is empty": FakeEmbedder(fingerprint=""),
    "counts 1 of 4": CountsTooFew(),
    "has no token": CountsNothing(),
    r"shape \(4, 7\), not \(4, 8\)": Wrong(lambda rows: rows[:, :7]),
    r"shape \(3, 8\)": Wrong(lambda rows: rows[:-1]),
    "float64, not float32": Wrong(lambda rows: rows.astype(np.float64)),
    "NaN": Wrong(lambda rows: rows * np.float32("nan")),
    "not 1": Wrong(lambda rows: rows * np.float32(2)),
    "another vector alone": Wrong(lambda rows: rows[::-1].copy()),
}


@pytest.mark.parametrize("told", BROKEN)
async def test_each_promise_that_is_broken_is_told_and_the_embedder_is_closed(told):
    with pytest.raises(ContractBroken, match=told):
        await check_embedder(BROKEN[told])
    assert BROKEN[told].is_closed
