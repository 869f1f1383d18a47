"""A batch-mate never changes a vector. These gateways remember none, so each is computed again, alone and in any company."""

import asyncio
import json
import random

import numpy as np
import pytest
from numpy.typing import NDArray
from openai import AsyncOpenAI

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.process import FLOAT32_ROW, Gateway
from compat_tests.test_faults import OwnGateway
from compat_tests.texts import MODEL, SAMPLES, prose
from compat_tests.truth import TOLERANCE, Vectors

MIN_COSINE = 0.9999  # in bfloat16, which rounds differently in batches of different shapes
NUM_MIXES, NUM_REQUESTS = 3, 16
TEXTS = [*SAMPLES.values(), *(prose(num_words, num_words) for num_words in (2, 7, 8, 9, 30, 100, 251))]


async def embedded(client: AsyncOpenAI, texts: list[str]) -> Vectors:
    answer = await client.embeddings.create(model=MODEL, input=texts)
    return np.array([row.embedding for row in answer.data], dtype=np.float32)


async def mixed(client: AsyncOpenAI, seed: int) -> tuple[list[int], Vectors]:
    """Requests at once of texts in any order beside strangers: which texts there were, and what they were given."""
    chosen = random.Random(seed)  # noqa: S311 - no secret
    strangers = [prose(chosen.randrange(1, 100), seed=1000 + number) for number in range(30)]
    requests = [chosen.sample([*TEXTS, *strangers], chosen.randrange(1, 8)) for _ in range(NUM_REQUESTS)]
    answers = np.concatenate(await asyncio.gather(*(embedded(client, texts) for texts in requests)))
    asked = [text for texts in requests for text in texts]
    known = [place for place, text in enumerate(asked) if text in TEXTS]
    return [TEXTS.index(asked[place]) for place in known], answers[known]


def num_batched(gateway: Gateway) -> NDArray[np.float64]:
    """How many windows were embedded, in how many batches."""
    return np.array([gateway.metric(f"gateway_batch_inputs_{part}") for part in ("sum", "count")])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
async def test_a_text_alone_and_in_any_company_has_the_same_vector(own_gateway: OwnGateway, precision: str) -> None:
    rows = json.dumps([{**FLOAT32_ROW, "precision": precision}])
    with running(own_gateway(GATEWAY__MODELS=rows, GATEWAY__CACHE__MAX_BYTES="0")) as gateway:
        assert f'"precision":"{precision}"' in gateway.log
        async with AsyncOpenAI(base_url=gateway.base_url, api_key=ENVIRONMENT_KEY) as client:
            alone = np.concatenate([await embedded(client, [text]) for text in TEXTS])
            before = num_batched(gateway)
            mixes = [await mixed(client, seed) for seed in range(NUM_MIXES)]
            num_windows, num_batches = num_batched(gateway) - before
        assert num_windows > 2 * num_batches  # so there was company
        gateway.stop()
    for places, together in mixes:
        assert len(places) > NUM_REQUESTS  # known texts among the strangers
        expected = alone[places]
        cosines = (together * expected).sum(axis=1) / np.linalg.norm(together, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() >= MIN_COSINE
        if precision == "float32":
            assert np.abs(together - expected).max() <= TOLERANCE
