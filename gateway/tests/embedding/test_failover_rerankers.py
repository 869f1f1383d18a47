"""A group of rerankers: members are proven equal by their scores, and each answers in the other's place."""

import numpy as np
import pytest

from gateway.embedding.embedder import Inputs, Vectors
from gateway.errors import GatewayError, OperatorError
from gateway.testing.fakes import FakeEmbedder, FakeReranker
from gateway.tests.embedding.test_failover import group_of, started


class Scoring(FakeReranker):
    """Its logits are those of a FakeReranker, seven times as large, passed through `change`."""

    def __init__(self, change=lambda logits: logits, **settings):
        super().__init__(**settings)
        self.change = change

    async def embed(self, prepared):
        vectors = await super().embed(prepared)
        return Vectors(np.asarray(self.change(7 * vectors.rows), dtype=np.float32), vectors.stages)


def half_precision(logits):
    return logits.astype(np.float16)


def bfloat16(logits):
    return (logits.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def rounded_probabilities(logits):
    """As of a server that gives probabilities of six decimals."""
    probabilities = np.clip(np.round(1 / (1 + np.exp(-logits.astype(np.float64))), 6), 1e-38, 1 - 2.0**-53)
    return np.log(probabilities) - np.log1p(-probabilities)


async def reranked(group, *texts):
    inputs = Inputs(list(texts), is_array=True, caller="c", deadline=1e12, query="which")
    return await group.embed(await group.prepare(inputs))


@pytest.mark.parametrize("change", [half_precision, bfloat16, rounded_probabilities, lambda logits: logits + 0.15])
async def test_the_same_reranker_in_another_precision_is_a_member(change):
    group, _ = await started(Scoring(), Scoring(change))
    assert all(member.is_checked for member in group.members)
    assert group.describe().kind == "reranker"


@pytest.mark.parametrize(
    "change", [lambda logits: logits + 1, lambda logits: -logits, lambda logits: 0.9 * logits, lambda logits: np.roll(logits, 1)]
)
async def test_another_reranker_is_refused_with_the_figures_though_all_cosines_are_1(change):
    group, _ = group_of(Scoring(), Scoring(change))
    with pytest.raises(OperatorError, match=r"do not give the same scores: of 20 one's logit is -?\d+\.\d+ and the other's -?\d+"):
        await group.start()


async def test_an_embedder_and_a_reranker_are_no_group():
    group, _ = group_of(Scoring(), FakeEmbedder(dimensions=1))
    with pytest.raises(OperatorError, match="differ: one is of the kind reranker, the other of the kind embedder"):
        await group.start()


async def test_the_next_member_scores_if_the_first_fails():
    class Failing(Scoring):
        is_broken = False

        async def embed(self, prepared):
            if self.is_broken:
                error = GatewayError("broken")
                error.status = 502
                raise error
            return await super().embed(prepared)

    first, second = Failing(), Scoring(half_precision)
    group, _ = await started(first, second)
    before = await reranked(group, "a", "b")
    first.is_broken = True
    after = await reranked(group, "a", "b")
    assert (before.member, after.member) == ("first", "second")
    np.testing.assert_allclose(before.rows, after.rows, atol=0.02)
