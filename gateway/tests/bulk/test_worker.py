"""A shard's vectors: what may pass is tried again, and a row without a vector costs no other its own."""

import numpy as np
import pytest

from gateway.bulk.patience import Patience
from gateway.bulk.row import Place, Row
from gateway.bulk.shard import Shard
from gateway.bulk.worker import BulkWorker, EmbedOptions
from gateway.embedding.embedder import Inputs, Prepared, Vectors
from gateway.errors import InputTooLong, InvalidValue, ModelLoading, OperatorError, Overloaded, RequestTooLong
from gateway.testing.fakes import FakeEmbedder, hashed


class Difficult(FakeEmbedder):
    """Fails as it is told to: `failures` one after another, and whatever texts say."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__()
        self.failures = list(failures)
        self.max_texts = 100

    async def prepare(self, inputs: Inputs) -> Prepared:
        if len(inputs.texts) > self.max_texts:
            raise RequestTooLong("many", 5)
        for index, text in enumerate(inputs.texts):
            if text == "long":
                raise InputTooLong(inputs.where(index), 256)
        return await super().prepare(inputs)

    async def embed(self, prepared: Prepared) -> Vectors:
        if self.failures:
            raise self.failures.pop(0)
        if "crash" in prepared.inputs.texts:
            raise RuntimeError("words of a network's own")
        vectors = await super().embed(prepared)
        vectors.rows[[text == "nan" for text in prepared.inputs.texts]] = np.nan
        return vectors


def shard_of(*texts: str) -> Shard:
    shard = Shard()
    for number, text in enumerate(texts):
        shard.add(Row(number, f"id {number}", text, Place(number + 1, number + 1)), len(text))
    return shard


def worker_of(
    embedder: FakeEmbedder, pauses: list[float] | None = None, *, dimensions: int = 8, patience: float = 100
) -> BulkWorker:
    waited = [] if pauses is None else pauses

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    return BulkWorker(embedder, EmbedOptions(dimensions), in_flight=1, patience=Patience(patience, sleep=sleep))


async def test_bad_rows_are_told_and_the_others_have_their_own_vectors():
    embedder = Difficult()
    embedder.poison = "poison"
    texts = ["a", "long", "b", "nan", "c", "poison", "long", "d", "crash", "e"]
    result = await worker_of(embedder).run(shard_of(*texts))
    assert result.ids == [f"id {number}" for number in (0, 2, 4, 7, 9)]
    np.testing.assert_array_equal(result.vectors, np.stack([hashed(text, 8) for text in "abcde"]))
    assert [(each.row, each.id, each.reason) for each in result.rejected] == [
        (1, "id 1", "Invalid text: maximum input length is 256 tokens. The maximum context length is 256 tokens"),
        (3, "id 3", "its vector has values that are not numbers"),
        (5, "id 5", "The model cannot embed text: it gave a vector with values that are not numbers"),
        (6, "id 6", "Invalid text: maximum input length is 256 tokens. The maximum context length is 256 tokens"),
        (8, "id 8", "the model failed on it"),
    ]


async def test_rows_that_cannot_be_prepared_leave_the_others_together():
    embedder = Difficult()
    await worker_of(embedder).run(shard_of("a", "long", "b", "long", "c"))
    assert embedder.num_embedded == 1


async def test_a_shard_that_is_too_long_for_a_request_becomes_several():
    embedder = Difficult()
    embedder.max_texts = 3
    result = await worker_of(embedder).run(shard_of(*"abcdefgh"))
    assert len(result.ids) == 8
    assert embedder.num_embedded == 4
    embedder.max_texts = 0
    result = await worker_of(embedder).run(shard_of("a"))
    assert [each.reason for each in result.rejected] == ["it is too long for a request"]


async def test_what_may_pass_is_tried_again_with_longer_and_longer_pauses():
    pauses: list[float] = []
    failures = [Overloaded(), ModelLoading("m"), Overloaded(retry_after_seconds=20), Overloaded()]
    result = await worker_of(Difficult(*failures), pauses).run(shard_of("a", "b"))
    assert len(result.ids) == 2
    bounds = [(1, 1.5), (2, 3), (20, 22), (4, 8)]  # their Retry-After is 1, 2, 20 and 1
    assert all(low <= pause <= high for pause, (low, high) in zip(pauses, bounds, strict=True))


async def test_patience_ends():
    pauses: list[float] = []
    with pytest.raises(OperatorError, match=r"still fails after \d\d seconds of waiting: The server is currently overloaded"):
        await worker_of(Difficult(*[Overloaded()] * 50), pauses, patience=90).run(shard_of("a"))
    assert 60 < sum(pauses) <= 90
    assert max(pauses) <= 30


async def test_what_no_input_is_to_blame_for_ends_the_run_at_once():
    error = InvalidValue("Invalid value for 'long_input'.", param="long_input")
    with pytest.raises(OperatorError, match="the model cannot go on: Invalid value for 'long_input'"):
        await worker_of(Difficult(error, error)).run(shard_of("a", "b"))


async def test_vectors_are_cut_and_of_length_one_again():
    result = await worker_of(FakeEmbedder(), dimensions=3).run(shard_of("a", "b"))
    assert result.vectors.shape == (2, 3)
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, rtol=1e-6)


async def test_a_shard_without_a_good_row_is_a_result_too():
    shard = Shard()
    shard.add(Row(0, None, "", Place(1, 5), "it is not JSON"), 0)
    result = await worker_of(FakeEmbedder()).run(shard)
    assert (result.vectors.shape, result.ids, len(result.rejected)) == ((0, 8), [], 1)
