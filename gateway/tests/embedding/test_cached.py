"""One piece of work for each distinct input, whoever asks for it, and as if there were no cache to whoever looks at the answer."""

import asyncio
import gc
import secrets
import threading
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.embedding import cached as cached_module
from gateway.embedding.cache import ENTRY_BYTES, Entry, VectorCache, keys_of, seed_of
from gateway.embedding.cached import CachedEmbedder, first_positions, is_large
from gateway.embedding.embedder import Inputs
from gateway.errors import InvalidValue, Overloaded, RequestTooLong, Unembeddable
from gateway.metrics import Metrics
from gateway.testing.fakes import FakeEmbedder, hashed, hashed_rows

MB = 1024 * 1024
DIMENSIONS = 8


@pytest.fixture
def embedder():
    return FakeEmbedder(dimensions=DIMENSIONS)


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def cached(embedder, metrics):
    return cached_over(embedder, metrics)


def cached_over(embedder, metrics, *, max_bytes=MB, max_request_tokens=1000):
    return CachedEmbedder(embedder, VectorCache(max_bytes), max_request_tokens=max_request_tokens, metrics=metrics.of_model("m"))


def inputs_of(*texts, **more):
    return Inputs(list(texts), is_array=True, caller="a", deadline=time.monotonic() + 60, **more)


async def embedded(cached, *texts, **more):
    return await cached.embed(await cached.prepare(inputs_of(*texts, **more)))


def expected(*texts):
    return np.stack([hashed(text, DIMENSIONS) for text in texts])


def lookups(metrics, result):
    return metrics.registry.get_sample_value("gateway_cache_lookups_total", {"model": "m", "result": result})


async def turns(number=20):
    """Lets every other task run on until it waits for something."""
    for _ in range(number):
        await asyncio.sleep(0)


def worked_on(embedder):
    """The texts the embedder was given, one list a call of `prepare`."""
    return [inputs.texts for inputs in embedder.prepared]


class TestHits:
    async def test_a_known_text_is_not_worked_on_again(self, cached, embedder):
        first = await embedded(cached, "one", "two")
        again = await embedded(cached, "two", "one")
        np.testing.assert_array_equal(again.rows, first.rows[::-1])
        assert worked_on(embedder) == [["one", "two"]]
        assert (first.num_hits, again.num_hits) == (0, 2)

    async def test_only_what_is_missing_is_worked_on_and_all_comes_in_order(self, cached, embedder):
        await embedded(cached, "b", "d")
        vectors = await embedded(cached, "a", "b", "c", "d", "a")
        np.testing.assert_array_equal(vectors.rows, expected("a", "b", "c", "d", "a"))
        assert worked_on(embedder)[1:] == [["a", "c"]]
        assert vectors.num_hits == 2

    async def test_tokens_are_counted_as_ever(self, cached):
        texts = ("three words here", "two words", "three words here")
        fresh = await cached.prepare(inputs_of(*texts))
        await cached.embed(fresh)
        known = await cached.prepare(inputs_of(*texts))
        assert fresh.token_counts == known.token_counts == [3, 2, 3]
        assert known.stages == {}

    @pytest.mark.parametrize("other", [{"normalize": False}, {"input_type": "query"}, {"long_input": "end"}])
    async def test_what_changes_a_vector_is_part_of_its_key(self, cached, embedder, other):
        await embedded(cached, "text")
        await embedded(cached, "text", **other)
        assert len(embedder.prepared) == 2
        await embedded(cached, "text", **other)
        assert len(embedder.prepared) == 2

    async def test_the_models_own_rule_asked_for_by_name_is_the_same(self, cached, embedder):
        await embedded(cached, "text")
        assert (await embedded(cached, "text", long_input="chunk")).num_hits == 1

    async def test_models_of_other_vectors_share_nothing(self, metrics):
        cache = VectorCache(MB)
        one, other = FakeEmbedder(fingerprint="a" * 24 + ".x"), FakeEmbedder(fingerprint="b" * 24 + ".x")
        for embedder in (one, other):
            cached = CachedEmbedder(embedder, cache, max_request_tokens=1000, metrics=metrics.of_model("m"))
            assert (await embedded(cached, "text")).num_hits == 0

    async def test_near_texts_are_different_texts(self, cached):
        texts = ["a", "a ", " a", "A", "a\0", "\u00e9", "e\u0301"]
        vectors = await embedded(cached, *texts)
        assert len({row.tobytes() for row in vectors.rows}) == len(texts)

    @given(
        requests=st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9), max_size=9), max_bytes=st.integers(0, 3000)
    )
    def test_any_requests_are_answered_as_without_a_cache(self, requests, max_bytes):
        async def run():
            cached = cached_over(FakeEmbedder(dimensions=DIMENSIONS), Metrics(), max_bytes=max_bytes)
            replies = await asyncio.gather(*(embedded(cached, *texts) for texts in requests))
            for texts, reply in zip(requests, replies, strict=True):
                np.testing.assert_array_equal(reply.rows, expected(*texts))

        asyncio.run(run())

    async def test_lookups_are_counted_by_result(self, cached, embedder, metrics):
        await embedded(cached, "a")
        embedder.gate = asyncio.Event()
        first = asyncio.create_task(embedded(cached, "b"))
        await embedder.is_waiting.wait()
        second = asyncio.create_task(embedded(cached, "a", "a", "b", "b", "c"))
        await turns()
        embedder.gate.set()
        await asyncio.gather(first, second)
        assert {result: lookups(metrics, result) for result in ("hit", "miss", "joined", "repeated")} == {
            "hit": 2, "miss": 3, "joined": 1, "repeated": 1,
        }  # fmt: skip


class TestOff:
    async def test_nothing_is_shared_but_repetitions_are_embedded_once(self, embedder, metrics):
        cached = cached_over(embedder, metrics, max_bytes=0)
        for _ in range(2):
            vectors = await embedded(cached, "a", "b", "a")
            np.testing.assert_array_equal(vectors.rows, expected("a", "b", "a"))
            assert vectors.num_hits is None
        assert worked_on(embedder) == [["a", "b"], ["a", "b"]]

    async def test_two_at_once_are_two_pieces_of_work(self, embedder, metrics):
        cached = cached_over(embedder, metrics, max_bytes=0)
        await asyncio.gather(embedded(cached, "a"), embedded(cached, "a"))
        assert worked_on(embedder) == [["a"], ["a"]]

    async def test_repetitions_keep_their_tokens_and_each_request_is_counted(self, embedder, metrics):
        cached = cached_over(embedder, metrics, max_bytes=0)
        vectors = await embedded(cached, "a b", "c", "a b")
        assert vectors.token_counts == [2, 1, 2]
        assert vectors.fingerprint == embedder.fingerprint
        assert {result: lookups(metrics, result) for result in ("hit", "miss", "repeated")} == {"hit": 0, "miss": 2, "repeated": 1}

    async def test_a_request_that_leaves_takes_its_work_along(self, embedder, metrics):
        cached = cached_over(embedder, metrics, max_bytes=0)
        embedder.gate = asyncio.Event()
        request = asyncio.create_task(embedded(cached, "a"))
        await embedder.is_waiting.wait()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert embedder.num_cancelled == 1
        assert not cached.tasks

    async def test_closing_cuts_what_does_not_end_by_itself(self, embedder, metrics):
        cached = cached_over(embedder, metrics, max_bytes=0)
        embedder.gate = asyncio.Event()
        request = asyncio.create_task(embedded(cached, "a"))
        await embedder.is_waiting.wait()
        await asyncio.wait_for(cached.close(), 30)
        with pytest.raises(asyncio.CancelledError):
            await request
        assert not cached.tasks


class TestErrors:
    async def test_an_input_keeps_its_name(self, cached):
        await embedded(cached, "known")
        prepared = await cached.prepare(inputs_of("known", "new", "new", "other"))
        missing = prepared.work.prepared.inputs
        assert [missing.where(index) for index in range(2)] == ["input[1]", "input[3]"]
        assert missing.only([1]).where(0) == "input[3]"

    async def test_a_requests_tokens_are_held_to_the_limit_with_hits_and_repetitions(self, embedder, metrics):
        cached = cached_over(embedder, metrics, max_request_tokens=5)
        await embedded(cached, "one two three")
        with pytest.raises(RequestTooLong, match="Requested 6 tokens"):
            await embedded(cached, "one two three", "one two three")
        with pytest.raises(RequestTooLong, match="Requested 8 tokens"):
            await embedded(cached, *["a b"] * 4)

    async def test_a_failure_is_the_requests_and_is_not_kept(self, cached, embedder):
        embedder.raises = Overloaded()
        with pytest.raises(Overloaded):
            await embedded(cached, "a")
        embedder.raises = None
        np.testing.assert_array_equal((await embedded(cached, "a")).rows, expected("a"))
        assert not cached.flights
        assert not cached.tasks


class TestOneFlight:
    async def test_many_requests_for_one_text_are_one_piece_of_work(self, cached, embedder):
        embedder.gate = asyncio.Event()
        requests = [asyncio.create_task(embedded(cached, "same")) for _ in range(50)]
        await embedder.is_waiting.wait()
        await turns()
        embedder.gate.set()
        for vectors in await asyncio.gather(*requests):
            np.testing.assert_array_equal(vectors.rows, expected("same"))
        assert embedder.num_embedded == 1
        assert not cached.flights
        assert not cached.tasks

    async def test_who_began_it_may_leave(self, cached, embedder):
        embedder.gate = asyncio.Event()
        first = asyncio.create_task(embedded(cached, "a", "b"))
        await embedder.is_waiting.wait()
        second = asyncio.create_task(embedded(cached, "b"))
        await turns()
        first.cancel()
        await turns()
        assert first.cancelled()
        assert embedder.num_cancelled == 0
        embedder.gate.set()
        np.testing.assert_array_equal((await second).rows, expected("b"))

    async def test_a_short_text_does_not_wait_for_a_bulk_that_has_it_too(self, cached, embedder):
        embedder.gate = asyncio.Event()
        bulk = asyncio.create_task(embedded(cached, "same", *map(str, range(100))))
        await embedder.is_waiting.wait()
        gate, embedder.gate = embedder.gate, None
        np.testing.assert_array_equal((await embedded(cached, "same")).rows, expected("same"))
        assert not bulk.done()
        gate.set()
        np.testing.assert_array_equal((await bulk).rows[:1], expected("same"))
        assert not cached.flights

    async def test_a_bulk_that_is_sent_again_is_one_piece_of_work(self, cached, embedder):
        embedder.gate = asyncio.Event()
        texts = list(map(str, range(100)))
        requests = [asyncio.create_task(embedded(cached, *texts)) for _ in range(3)]
        await embedder.is_waiting.wait()
        await turns()
        short = asyncio.create_task(embedded(cached, "0"))
        await turns()
        again = asyncio.create_task(embedded(cached, "0", "a"))
        await turns()
        embedder.gate.set()
        for vectors in await asyncio.gather(*requests):
            np.testing.assert_array_equal(vectors.rows, expected(*texts))
        np.testing.assert_array_equal((await again).rows, expected("0", "a"))
        assert (await short).rows.shape == (1, DIMENSIONS)
        assert embedder.num_embedded == 3  # the bulk, the short text, and what else the last one asks for
        assert not cached.flights

    async def test_when_all_have_left_the_work_is_given_up(self, cached, embedder):
        embedder.gate = asyncio.Event()
        requests = [asyncio.create_task(embedded(cached, "a")) for _ in range(3)]
        await embedder.is_waiting.wait()
        await turns()
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        await turns()
        assert embedder.num_cancelled == 1
        assert not cached.flights
        assert not cached.tasks
        embedder.gate = None
        np.testing.assert_array_equal((await embedded(cached, "a")).rows, expected("a"))

    async def test_who_joined_work_that_failed_tries_alone(self, cached, embedder):
        embedder.gate = asyncio.Event()
        first = asyncio.create_task(embedded(cached, "poison", "b"))
        await embedder.is_waiting.wait()
        second = asyncio.create_task(embedded(cached, "a", "b"))
        await turns()
        embedder.poison = "poison"
        embedder.gate.set()
        with pytest.raises(Unembeddable):
            await first
        np.testing.assert_array_equal((await second).rows, expected("a", "b"))

    async def test_closing_ends_what_flies(self, cached, embedder):
        embedder.gate = asyncio.Event()
        request = asyncio.create_task(embedded(cached, "a"))
        await embedder.is_waiting.wait()
        request.cancel()
        await cached.close()
        assert embedder.is_closed
        assert not cached.tasks

    async def test_closing_cuts_what_does_not_end_by_itself(self, cached, embedder):
        embedder.gate = asyncio.Event()
        request = asyncio.create_task(embedded(cached, "a"))
        await embedder.is_waiting.wait()
        await asyncio.wait_for(cached.close(), 30)
        with pytest.raises(asyncio.CancelledError):
            await request
        assert not cached.tasks


class TestBytes:
    def test_the_oldest_unused_goes_first(self):
        size = ENTRY_BYTES + 32
        cache = VectorCache(3 * size)
        entry = Entry(b"x" * 32, 1, is_long=False)
        for name in "abc":
            cache.put(name.encode(), entry)
        assert cache.get(b"a")
        cache.put(b"d", entry)
        assert [bool(cache.get(name.encode())) for name in "abcd"] == [True, False, True, True]
        assert cache.num_bytes == 3 * size

    def test_what_could_never_fit_is_not_taken_in(self):
        cache = VectorCache(ENTRY_BYTES + 31)
        cache.put(b"a", Entry(b"x" * 32, 1, is_long=False))
        assert cache.num_bytes == 0
        assert not cache.entries

    def test_putting_a_key_twice_counts_it_once(self):
        cache = VectorCache(MB)
        for _ in range(2):
            cache.put(b"a", Entry(b"x" * 32, 1, is_long=False))
        assert cache.num_bytes == ENTRY_BYTES + 32

    def test_the_bytes_are_the_memory(self):
        cache = VectorCache(1000 * MB)
        gc.collect()
        tracemalloc.start()
        for number in range(20_000):
            [key] = keys_of(inputs_of(str(number)), b"seed")
            cache.put(key, Entry(secrets.token_bytes(4 * 384), 1000 + number, is_long=False))
        allocated, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 0.9 < allocated / cache.num_bytes < 1.05


def test_places_are_first_met_where_they_appear():
    assert first_positions([0, 1, 0, 2, 1]) == [0, 1, 3]


class Counting(FakeEmbedder):
    """Only its work tells how many tokens a text has: as many as it has characters."""

    async def embed(self, prepared):
        vectors = await super().embed(prepared)
        return replace(vectors, token_counts=[len(text) for text in prepared.inputs.texts])


async def test_tokens_that_only_the_work_tells_are_charged_alike_new_joined_repeated_and_from_the_cache(metrics):
    cached = cached_over(Counting(dimensions=DIMENSIONS), metrics)
    first, joined = await asyncio.gather(embedded(cached, "aaa", "bb", "aaa"), embedded(cached, "bb", "c"))
    assert first.token_counts == [3, 2, 3]
    assert joined.token_counts == [2, 1]
    again = await embedded(cached, "c", "aaa", "dddd")
    assert (again.num_hits, again.token_counts) == (2, [1, 3, 4])
    assert (await cached.prepare(inputs_of("aaa"))).token_counts == [3]


async def test_without_a_cache_the_tokens_are_those_of_the_work_too(metrics):
    cached = cached_over(Counting(dimensions=DIMENSIONS), metrics, max_bytes=0)
    assert (await embedded(cached, "aaa", "bb", "aaa")).token_counts == [3, 2, 3]


async def test_what_is_missing_is_embedded_for_the_caller_who_asked(cached, embedder):
    """The batcher shares the device among callers, so it must know whose work it is."""
    await embedded(cached, "known")
    for caller in ("b", "c"):
        prepared = await cached.prepare(
            Inputs(["known", f"new {caller}"], is_array=True, caller=caller, deadline=time.monotonic() + 60)
        )
        await cached.embed(prepared)
    assert [(inputs.caller, inputs.texts) for inputs in embedder.prepared] == [("a", ["known"]), ("b", ["new b"]), ("c", ["new c"])]


async def test_tokens_that_need_no_work_are_told(cached):
    await embedded(cached, "one two", "three")
    prepared = await cached.prepare(inputs_of("one two", "four five six", "one two"))
    assert (prepared.num_tokens, prepared.num_cached_tokens) == (7, 4)


class TestRowsOfAnyNumber:
    """A sparse encoder's texts have as many rows as they have weights, a multi-vector encoder's as they have tokens."""

    TEXTS = ("one", "three words here", "", "one", "four")

    @pytest.fixture(params=["sparse_encoder", "multi_vector_encoder"])
    def embedder(self, request):
        embedder = FakeEmbedder(dimensions=DIMENSIONS)
        embedder.about["kind"] = request.param
        return embedder

    async def test_each_text_keeps_its_own_rows_from_the_cache_too(self, cached, embedder):
        texts = [text for text in self.TEXTS if text or embedder.about["kind"] == "sparse_encoder"]
        for _ in range(2):
            vectors = await embedded(cached, *texts)
            rows = vectors.by_input()
            assert vectors.row_counts == list(map(len, rows))
            for text, found in zip(texts, rows, strict=True):
                np.testing.assert_array_equal(found, hashed_rows(text, embedder.describe()))
        assert embedder.num_embedded == 1

    async def test_a_reply_larger_than_the_bound_is_refused_before_it_is_built(self, cached, embedder, monkeypatch):
        monkeypatch.setattr(cached_module, "MAX_NUMBERS", 100)
        await embedded(cached, *["one"] * 12)
        with pytest.raises(InvalidValue, match="Send fewer texts"):
            await embedded(cached, *["one"] * 60)


class Ids(list):
    """Token ids that know on which thread they were read for a key."""

    def __repr__(self):
        self.thread = threading.current_thread()
        return super().__repr__()


async def test_the_keys_of_few_ids_are_made_on_the_loop_and_those_of_many_in_a_thread(cached):
    few, many = Ids(range(10)), Ids(range(100_000))
    for ids in (few, many):
        await cached.keys(inputs_of("", token_ids=[ids]), cached.describe())
    assert few.thread is threading.current_thread()
    assert many.thread is not threading.current_thread()


def test_what_takes_long_to_digest_is_told_by_all_that_a_key_is_made_of():
    assert not is_large(inputs_of("a", "b", query="q", token_ids=[None, [5]]))
    for more in ({"query": "q" * 100_000}, {"token_ids": [None, [5] * 10_000]}):
        assert is_large(inputs_of("a", "b", **more))
    assert is_large(inputs_of("a" * 100_000))
    assert is_large(inputs_of(*"ab" * 200))


def test_an_instruction_and_a_query_are_told_apart_whatever_characters_they_have(embedder):
    about = embedder.describe()
    end = "\0True\0None\0query\0"
    split = [
        seed_of(inputs_of("t", instruction=first, query=second), about) for first, second in (("a", f"b{end}c"), (f"a{end}b", "c"))
    ]
    assert split[0] != split[1]
