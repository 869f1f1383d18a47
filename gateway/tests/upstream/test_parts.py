"""What is larger than an upstream takes."""

import asyncio
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.testing import upstream_server as standin
from gateway.tests.upstream.conftest import embedded, inputs, over
from gateway.upstream.parts import PartSize, parts


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 100))
def test_parts_are_all_inputs_in_order_and_none_is_too_large(counts, max_inputs, max_tokens):
    found = parts(counts, PartSize(max_inputs, max_tokens))
    assert [index for each in found for index in range(each.start, each.stop)] == list(range(len(counts)))
    for each in found:
        assert 1 <= each.stop - each.start <= max_inputs
        assert sum(counts[each]) <= max_tokens or each.stop - each.start == 1
    for one, following in pairwise(found):  # nor is any smaller than it must be
        size = following.start - one.start
        assert size + 1 > max_inputs or sum(counts[one.start : following.start + 1]) > max_tokens


TEXTS = [f"text number {number}" for number in range(70)]


async def test_tei_is_asked_for_as_many_at_once_as_it_says_it_takes():
    async with over("tei", standin.tei) as (server, remote):
        vectors = await embedded(remote, *TEXTS)
        assert sorted(len(request.body["inputs"]) for request in server.requests) == [6, 32, 32]
    np.testing.assert_allclose(vectors.rows, standin.vectors(TEXTS), atol=1e-6)
    assert (len(vectors.token_counts), sum(vectors.token_counts)) == (70, standin.words(TEXTS))


async def test_tokens_split_too():
    async with over("openai", standin.openai, max_request_tokens=40) as (server, remote):
        vectors = await embedded(remote, *TEXTS[:10])
        assert len(server.requests) > 1
    np.testing.assert_allclose(vectors.rows, standin.vectors(TEXTS[:10]), atol=1e-6)


async def test_only_so_many_parts_are_sent_at_once():
    gate = asyncio.Event()

    def held(request):
        said = standin.openai(request)
        said.gate = gate
        return said

    async with over("openai", standin.openai, max_inputs=1, max_parallel=3) as (server, remote):
        server.answer = held
        task = asyncio.create_task(embedded(remote, *TEXTS[:12]))
        async with asyncio.timeout(10):
            while server.num_open < 3:
                await asyncio.sleep(0.005)
        assert server.most_open == 3
        gate.set()
        vectors = await task
        assert server.most_open == 3
        assert len(server.requests) == 12
    np.testing.assert_allclose(vectors.rows, standin.vectors(TEXTS[:12]), atol=1e-6)


async def test_one_part_that_fails_fails_the_request_and_ends_the_others():
    gate = asyncio.Event()

    def answer(request):
        if "bad" in request.body["input"]:
            return standin.openai_error(401, "Incorrect API key provided")
        said = standin.openai(request)
        said.gate = gate
        return said

    async with over("openai", standin.openai, max_inputs=1) as (server, remote):
        server.answer = answer
        with pytest.raises(UpstreamError, match="refused our key"):
            await embedded(remote, "a", "b", "bad", "c", "d", "e")
        async with asyncio.timeout(10):
            while server.num_open:
                await asyncio.sleep(0.005)
        assert server.num_left >= 1
        assert len(server.requests) <= 4


async def test_inputs_keep_their_names_in_whatever_part_they_are():
    def answer(request):
        said = standin.openai(request, encoding="float")
        if "bad" in request.body["input"]:
            said.body["data"][request.body["input"].index("bad")]["embedding"][3] = float("nan")
        return said

    async with over("openai", answer, max_inputs=3) as (_, remote):
        prepared = await remote.prepare(inputs("a", "b", "c", "d", "bad", "e"))
        with pytest.raises(Exception, match=r"cannot embed 'input\[4\]'"):
            await remote.embed(prepared)


@pytest.mark.parametrize(
    "refusal",
    [
        standin.tei_error(413, "batch size 70 > maximum allowed batch size 16", "Validation"),
        standin.openai_error(400, "Invalid 'input': array length must be 16 or less."),
        standin.Said(422, {"detail": [{"type": "too_long", "msg": "List should have at most 16 items after validation, not 70"}]}),
    ],
)
async def test_how_many_it_takes_is_learned_from_its_refusal(refusal):
    async with over("openai", standin.openai) as (server, remote):
        server.answer = lambda request: refusal if len(request.body["input"]) > 16 else standin.openai(request)
        vectors = await embedded(remote, *TEXTS)
        assert len(server.requests) == 1 + 5
        await embedded(remote, *TEXTS)
        assert len(server.requests) == 1 + 5 + 5
    np.testing.assert_allclose(vectors.rows, standin.vectors(TEXTS), atol=1e-6)
