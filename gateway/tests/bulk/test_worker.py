"""A shard's vectors: what may pass is tried again, and a row without a vector costs no other its own."""

from dataclasses import replace

import numpy as np
import pytest

from gateway.bulk.retry import Patience
from gateway.bulk.row import Position, Row
from gateway.bulk.shard import Shard
from gateway.bulk.worker import BulkWorker, EmbedOptions
from gateway.embedding.embedder import Inputs, Prepared, Vectors
from gateway.errors import (
    BodyTooLarge,
    DeadlinePassed,
    InputTooLong,
    InsufficientPermissions,
    InsufficientQuota,
    InternalError,
    InvalidJSON,
    InvalidKey,
    InvalidValue,
    ModelLoading,
    OperatorError,
    Overloaded,
    RateLimited,
    RequestTooLong,
    Unembeddable,
    UnknownModel,
    UpstreamError,
    UpstreamUnavailable,
)
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
        shard.add(Row(number, f"id {number}", text, Position(number + 1, number + 1)), len(text))
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
    shard.add(Row(0, None, "", Position(1, 5), "it is not JSON"), 0)
    result = await worker_of(FakeEmbedder()).run(shard)
    assert (result.vectors.shape, result.ids, len(result.rejected)) == ((0, 8), [], 1)


class Refusing(FakeEmbedder):
    """A server that refuses a request with a bad text in it, by words that name no input; `error` is what it says then."""

    def __init__(self, error: Exception, *bad: str) -> None:
        super().__init__()
        self.error = error
        self.bad = set(bad)
        self.num_calls = 0

    async def embed(self, prepared: Prepared) -> Vectors:
        self.num_calls += 1
        if self.bad.intersection(prepared.inputs.texts) or "*" in self.bad:
            raise self.error
        return await super().embed(prepared)


REFUSALS = [
    UpstreamError("m", "refused the request with the status 400"),
    UpstreamError("m", "refused the request with the status 413"),
    UpstreamError("m", "answered wrongly: a vector is missing"),
    UpstreamError("m", "failed with the status 500", may_help=True),
    InvalidValue("Invalid value for something.", param="something"),
    InvalidJSON(),
    InternalError("id"),
    BodyTooLarge(5),
    Unembeddable("input"),
    InputTooLong("input", 5),
    RuntimeError("words of a network's own"),
    ValueError("the same"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: f"{type(error).__name__}: {error}"[:50])
async def test_one_refused_row_stops_nothing_whatever_the_refusal(error):
    texts = [f"text {number}" for number in range(64)]
    embedder = Refusing(error, "text 17", "text 63")
    result = await worker_of(embedder, patience=5).run(shard_of(*texts))
    assert [each.row for each in result.rejected] == [17, 63]
    assert "words of a network" not in result.rejected[0].reason
    np.testing.assert_array_equal(result.vectors, np.stack([hashed(text, 8) for text in texts if text not in embedder.bad]))


@pytest.mark.parametrize("bad", [0, 1, 700, 1023, 1024, 2046, 2047])
async def test_halving_costs_at_most_two_calls_for_each_halving_and_two_more(bad):
    texts = [f"text {number}" for number in range(2048)]
    embedder = Refusing(REFUSALS[0], f"text {bad}")
    result = await worker_of(embedder).run(shard_of(*texts))
    assert [each.row for each in result.rejected] == [bad]
    assert embedder.num_calls - 1 <= 2 * 11 + 2


@pytest.mark.parametrize("bad", [0, 1, 700, 2047])
async def test_a_row_that_an_error_names_is_asked_for_alone_and_believed_then(bad):
    texts = [f"text {number}" for number in range(2048)]
    embedder = FakeEmbedder()
    embedder.poison = f"text {bad}"
    result = await worker_of(embedder).run(shard_of(*texts))
    assert [each.row for each in result.rejected] == [bad]
    assert embedder.num_embedded <= 4


async def test_many_named_rows_are_halved_and_an_error_that_names_the_wrong_one_costs_that_row_nothing():
    class Misnaming(Refusing):
        async def embed(self, prepared: Prepared) -> Vectors:
            self.error = Unembeddable(prepared.inputs.where(0))
            return await super().embed(prepared)

    texts = [f"text {number}" for number in range(256)]
    embedder = Misnaming(REFUSALS[0], *texts[40:240:2])
    result = await worker_of(embedder).run(shard_of(*texts))
    assert [each.row for each in result.rejected] == list(range(40, 240, 2))
    assert len(result.ids) == 156
    assert embedder.num_calls < 2 * 256 + 3 * 8


NEVER_HALVED = [
    Overloaded(), DeadlinePassed(), UpstreamUnavailable("m", "has too much to do"), RateLimited("tokens", "m", wait_seconds=1),
    InvalidKey("no"), UnknownModel("m"), InsufficientPermissions(), InsufficientQuota(budget=1, period="day", renewed_at="then"),
]  # fmt: skip


@pytest.mark.parametrize("error", NEVER_HALVED, ids=lambda error: type(error).__name__)
async def test_what_is_said_of_any_request_is_never_halved(error):
    embedder = Refusing(error, "b")
    with pytest.raises(OperatorError, match=r"the model (cannot go on|still fails)"):
        await worker_of(embedder, patience=0).run(shard_of("a", "b", "c", "d"))
    assert embedder.num_calls == 1


async def test_where_a_good_text_fails_too_no_row_is_to_blame_and_nothing_is_halved():
    embedder = Refusing(REFUSALS[0], "*")
    with pytest.raises(OperatorError, match="the model cannot go on: The upstream of the model `m` refused the request"):
        await worker_of(embedder).run(shard_of(*map(str, range(2048))))
    assert embedder.num_calls == 2


async def test_a_model_that_breaks_while_rows_are_looked_for_is_noticed():
    class Breaking(Refusing):
        async def embed(self, prepared: Prepared) -> Vectors:
            if self.num_calls > 30:
                self.bad.add("*")
            return await super().embed(prepared)

    embedder = Breaking(REFUSALS[0], *(f"bad {number}" for number in range(2048)))
    with pytest.raises(OperatorError, match="the model cannot go on"):
        await worker_of(embedder).run(shard_of(*(f"bad {number}" for number in range(2048))))
    assert embedder.num_calls < 60


async def test_a_failure_that_may_pass_is_waited_out_before_rows_are_blamed():
    pauses: list[float] = []
    embedder = Refusing(UpstreamError("m", "failed with the status 500", may_help=True), "bad")
    result = await worker_of(embedder, pauses, patience=10).run(shard_of("a", "bad", "b", "c"))
    assert [each.row for each in result.rejected] == [1]
    assert sum(pauses) <= 10
    assert len(pauses) < embedder.num_calls


async def test_texts_that_were_chunked_or_cut_are_told():
    class Short(FakeEmbedder):
        async def prepare(self, inputs: Inputs) -> Prepared:
            prepared = await super().prepare(inputs)
            return replace(prepared, is_long=[count > 2 for count in prepared.token_counts])

    for rule, treatment in (("chunk", "chunked"), ("end", "cut")):
        worker = BulkWorker(Short(), EmbedOptions(8, long_input=rule), in_flight=1, patience=Patience(0))
        result = await worker.run(shard_of("a", "one two three", "b", "one two three four"))
        assert [(each.row, each.id, each.tokens, each.treatment) for each in result.long] == [
            (1, "id 1", 3, treatment), (3, "id 3", 4, treatment),
        ]  # fmt: skip
