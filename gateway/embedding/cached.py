"""An LRU cache with single-flight: each distinct input is embedded once, and concurrent requests for it share one computation.

Requests share vectors only: each keeps its own limits, its own deadline and its own names of inputs.

The vectors of an embedder may change while it runs. So each lookup first verifies the embedder, and a request that spans a change
begins again: no reply mixes old and new vectors.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
from msgspec import Struct

from gateway.background import launch
from gateway.embedding.cache import Entry, Key, VectorCache, keys_of, scope_of, seed_of
from gateway.embedding.embedder import (
    MAX_NUMBERS,
    Description,
    Embedder,
    Health,
    Inputs,
    Prepared,
    StageSeconds,
    Vectors,
    Verified,
    WorkT,
)
from gateway.embedding.vectors import Float32, too_many_numbers
from gateway.errors import Overloaded, RequestTooLong
from gateway.metrics import ModelMetrics

# Above these, a thread makes the digests (about 0.1 ms for 100,000 characters or 100 inputs).
MAX_ON_LOOP_CHARS = 64 * 1024
ID_CHARS = 64  # a token id takes as long as so many characters
MAX_ON_LOOP_INPUTS = 256
FEW_INPUTS = 16  # a request may always join a flight of at most so many
MAX_BEGINNINGS = 3  # attempts of a request that spans changes of the model
FLOAT_BYTES = 4
CLOSE_SECONDS = 1.0  # for flights to end once their embedder is closed


@dataclass(frozen=True, slots=True)
class _EmbeddedEntries:
    """The cache entries of some inputs, in their order."""

    entries: list[Entry]
    stages: StageSeconds


class _InFlight:
    """A flight: inputs being embedded by a task of its own, so that the request that began it may leave. It is cancelled when its
    last waiter leaves.

    Without a task, `task` is a future, and whoever began the flight is one of its waiters by this very future.
    """

    def __init__(self, keys: list[Key]) -> None:
        self.positions = {key: position for position, key in enumerate(keys)}
        self.waiters: set[asyncio.Future[Any]] = set()
        self.task: asyncio.Future[_EmbeddedEntries]
        self.cancel: Callable[[], object]

    def join(self) -> asyncio.Future[None]:
        """Returns a future for one waiter, done once the flight has ended in any way. The waiter must `leave`."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.add(waiter)
        if self.task.done():
            waiter.set_result(None)
        return waiter

    def leave(self, waiter: asyncio.Future[Any]) -> None:
        """What has ended is not cancelled: whoever began it may have forgotten its work."""
        self.waiters.remove(waiter)
        if not self.waiters and not self.task.done():
            self.cancel()

    def end(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():  # its request may have been cancelled in this very turn of the loop
                waiter.set_result(None)

    @property
    def has_failed(self) -> bool:
        return self.task.cancelled() or self.task.exception() is not None

    def entry(self, key: Key) -> Entry:
        return self.task.result().entries[self.positions[key]]


class _Deduplicated(Struct, Generic[WorkT], frozen=True, eq=False):
    """A request's distinct inputs. Input i equals distinct input `places[i]`; distinct input p first appears at index `first[p]`.

    `entries` are the cache's entries at the time of preparing, None for a miss. `missing` are the places of the misses, and
    `prepared` contains these inputs in that order. `about` describes the embedder at that time. `select` gives the distinct inputs
    at some places, prepared, if another process prepared them all: their texts are not known here then. That process asks only for
    distinct inputs, and `asked` are the places of all of its request's.
    """

    keys: list[Key]
    places: list[int]
    first: list[int]
    entries: list[Entry | None]
    missing: list[int]
    prepared: Prepared[WorkT] | None
    about: Description
    select: Callable[[list[int]], Prepared[WorkT]] | None = None
    asked: list[int] | None = None

    @property
    def counted(self) -> list[int]:
        """The places of the request's inputs, for counting hits and repetitions."""
        return self.places if self.asked is None else self.asked

    @property
    def all_prepared(self) -> Prepared[WorkT] | None:
        """All distinct inputs prepared; None if some were found in the cache."""
        return self.prepared if len(self.missing) == len(self.keys) else None


class CachedEmbedder(Generic[WorkT]):
    """An Embedder around another one. With a `cache` of 0 bytes requests share nothing; each still embeds repetitions once."""

    def __init__(self, embedder: Embedder[WorkT], cache: VectorCache, *, max_request_tokens: int, metrics: ModelMetrics) -> None:
        self.embedder = embedder
        self.verify = embedder.verify if isinstance(embedder, Verified) else None
        self.about: Description | None = None  # as it last was
        self.cache = cache
        self.max_request_tokens = max_request_tokens
        self.metrics = metrics
        self.flights: dict[Key, _InFlight] = {}
        self.tasks: set[asyncio.Task[Any]] = set()  # flights, and requests that embed alone

    @property
    def is_shared(self) -> bool:
        """Whether requests share work. Read anew each time: the size of the cache may change while the gateway runs."""
        return self.cache.max_bytes > 0

    async def start(self) -> None:
        await self.embedder.start()

    async def prepare(self, inputs: Inputs) -> Prepared[_Deduplicated[WorkT]]:
        """Prepares the missing inputs: the embedder's own limits see only these. Token counts include hits and repetitions."""
        if self.verify is not None:
            await self.verify()
        about = self.current()
        keys = await self.keys(inputs, about)
        distinct = list(dict.fromkeys(keys))
        places, first = _places_of(keys, distinct)
        entries = list(map(self.cache.get, distinct))
        missing = [place for place, entry in enumerate(entries) if entry is None]
        prepared = await self.embedder.prepare(inputs.only([first[place] for place in missing])) if missing else None
        token_counts, is_long = _counts_of(entries, missing, prepared)
        whole = Prepared(
            inputs,
            [token_counts[place] for place in places],
            [is_long[place] for place in places],
            inputs.long_input or about.long_input,
            work=_Deduplicated(distinct, places, first, entries, missing, prepared, about),
            stages=prepared.stages if prepared else {},
            num_cached_tokens=sum([token_counts[place] for place in places if entries[place]]),
        )
        if whole.num_tokens > self.max_request_tokens:
            num_counted = prepared.num_tokens if prepared else 0
            raise RequestTooLong(str(whole.num_tokens), self.max_request_tokens).after(num_tokens=num_counted)
        return whole

    def look_up(
        self, keys: list[Key], places: list[int], whole: Prepared[object], select: Callable[[list[int]], Prepared[WorkT]]
    ) -> Prepared[_Deduplicated[WorkT]]:
        """Does what `prepare` does for distinct inputs that another process prepared: `whole` has the counts of all of them.

        The result has as many inputs, and counts those of the request, of which input i is distinct input `places[i]`.
        """
        entries = list(map(self.cache.get, keys))
        missing = [place for place, entry in enumerate(entries) if entry is None]
        every = list(range(len(keys)))
        prepared = select(missing) if missing else None
        asked = places or every
        work = _Deduplicated(keys, every, every, entries, missing, prepared, self.current(), select, asked)
        num_cached = sum([whole.token_counts[place] for place in asked if entries[place]])
        return Prepared(whole.inputs, whole.token_counts, whole.is_long, whole.rule, work=work, num_cached_tokens=num_cached)

    def current(self) -> Description:
        """The embedder's present description. If its scope changed, drops the old one's entries: no key would find them again."""
        about = self.describe()
        if self.about is not None and self.about.scope != about.scope:
            self.cache.drop(scope_of(self.about))
        self.about = about
        return about

    async def keys(self, inputs: Inputs, about: Description) -> list[Key]:
        if is_large(inputs):
            return await asyncio.to_thread(lambda: keys_of(inputs, seed_of(inputs, about)))
        return keys_of(inputs, seed_of(inputs, about))

    async def embed(self, prepared: Prepared[_Deduplicated[WorkT]]) -> Vectors:
        for _ in range(MAX_BEGINNINGS):
            vectors = await self.collect(prepared)
            if self.is_current(prepared.work):
                return vectors
            if prepared.work.select is not None:
                break
            prepared = await self.prepare(prepared.inputs)
        raise Overloaded("The model was changed while it was asked.")

    def is_current(self, distinct: _Deduplicated[WorkT]) -> bool:
        return self.describe().scope == distinct.about.scope

    async def collect(self, prepared: Prepared[_Deduplicated[WorkT]]) -> Vectors:
        """The vectors of all inputs. They may be of two models if the description changed meanwhile."""
        distinct = prepared.work
        if not self.is_shared and distinct.about.row_width is None and (alone := distinct.all_prepared):
            return await self.embed_alone(distinct, alone)
        if not distinct.missing:
            self.metrics.record_lookups(hit=len(distinct.counted))
            known = [entry for place in distinct.places if (entry := distinct.entries[place])]
            return self.join(distinct, known, {}, num_hits=len(distinct.counted))
        entries = [entry or self.cache.get(key) for key, entry in zip(distinct.keys, distinct.entries, strict=True)]
        found = {place: entry for place, entry in enumerate(entries) if entry}
        num_hits = sum(place in found for place in distinct.counted)
        self.metrics.record_lookups(hit=num_hits, repeated=len(distinct.counted) - num_hits - (len(entries) - len(found)))
        stages = await self.fill(found, prepared) if len(found) < len(entries) else {}
        chosen = [found[place] for place in distinct.places]
        if not self.is_current(distinct):
            return Vectors(np.zeros((0, 0), dtype=np.float32))  # perhaps rows of two widths
        return self.join(distinct, chosen, stages, num_hits=num_hits)

    def join(self, distinct: _Deduplicated[WorkT], chosen: list[Entry], stages: StageSeconds, *, num_hits: int) -> Vectors:
        """The vectors of these entries, one for each input."""
        rows, row_counts = _joined([entry.row for entry in chosen], distinct.about)
        return Vectors(
            rows,
            stages,
            row_counts=row_counts,
            num_hits=num_hits if self.is_shared else None,
            token_counts=[entry.num_tokens for entry in chosen],
            fingerprint=distinct.about.fingerprint,
        )

    async def embed_alone(self, distinct: _Deduplicated[WorkT], prepared: Prepared[WorkT]) -> Vectors:
        """Without a cache: no other request can join, so the caller's own task embeds, and the rows are never entries."""
        places = distinct.places
        self.metrics.record_lookups(miss=len(distinct.keys), repeated=len(distinct.counted) - len(distinct.keys))
        if (task := asyncio.current_task()) is None:
            raise RuntimeError("an embedder was called outside of a task")
        self.tasks.add(task)
        try:
            vectors = await self.embedder.embed(prepared)
        finally:
            self.tasks.discard(task)
        counts = vectors.token_counts or prepared.token_counts
        return Vectors(
            vectors.rows if len(places) == len(distinct.keys) else vectors.rows[places],
            vectors.stages,
            token_counts=[counts[place] for place in places],
            fingerprint=distinct.about.fingerprint,
        )

    async def fill(self, found: dict[int, Entry], prepared: Prepared[_Deduplicated[WorkT]]) -> StageSeconds:
        """Single-flight: joins the flights that already embed missing entries, and embeds the rest.

        It joins no flight larger than both this request and FEW_INPUTS: a joiner waits for all its inputs.
        """
        distinct = prepared.work
        missing = [place for place in distinct.missing if place not in found]
        most = max(FEW_INPUTS, len(distinct.keys))
        flying = {place: flight for place in missing if (flight := self.flights.get(distinct.keys[place]))}
        flights = {place: flight for place, flight in flying.items() if len(flight.positions) <= most}
        own = [place for place in missing if place not in flights]
        self.metrics.record_lookups(miss=len(own), joined=len(flights))
        if own:
            flights |= dict.fromkeys(own, self.launch(prepared, own))
        await _wait_ended(set(flights.values()))
        stages = flights[own[0]].task.result().stages if own else {}
        lost = [place for place, flight in flights.items() if flight.has_failed]
        found |= {place: flight.entry(distinct.keys[place]) for place, flight in flights.items() if not flight.has_failed}
        if lost:  # inputs of another request may be to blame: tries the lost ones without those
            made = await self.embed_missing(prepared, lost)
            found |= dict(zip(lost, made.entries, strict=True))
            stages = made.stages
        return stages

    def launch(self, prepared: Prepared[_Deduplicated[WorkT]], places: list[int]) -> _InFlight:
        """Starts a flight for distinct inputs that no other flight embeds."""
        flight = _InFlight([prepared.work.keys[place] for place in places])
        task = flight.task = launch(self.embed_missing(prepared, places), name="embed", on_end=lambda _: self.on_done(flight, task))
        flight.cancel = task.cancel
        self.tasks.add(task)
        if self.is_shared:
            self.flights.update(dict.fromkeys(flight.positions, flight))
        return flight

    def find(self, keys: list[Key]) -> list[Entry] | None:
        """The cached entries of all these inputs; None if one is missing."""
        entries = [entry for key in keys if (entry := self.cache.get(key)) is not None]
        return entries if len(entries) == len(keys) else None

    def depart(self, keys: list[Key], cancel: Callable[[], object]) -> _InFlight | None:
        """Starts a flight that has no task, for inputs that the caller embeds by itself. It must `land`.

        Returns None if another flight or the cache has one of them. `cancel` is called if the caller and all who joined it `leave`.
        """
        flights, entries = self.flights, self.cache.entries
        if any(key in flights or key in entries for key in keys):
            return None
        flight = _InFlight(keys)
        flight.task = asyncio.get_running_loop().create_future()
        flight.cancel = cancel
        flight.waiters.add(flight.task)
        if self.is_shared:
            flights.update(dict.fromkeys(keys, flight))
        return flight

    def land(self, flight: _InFlight, entries: list[Entry], stages: StageSeconds) -> None:
        """Ends a flight that `depart` began, with its inputs' entries, and caches them."""
        if not flight.task.done():
            flight.task.set_result(_EmbeddedEntries(entries, stages))
        for key, entry in zip(flight.positions, entries, strict=True):
            self.cache.put(key, entry)
        self.end_flight(flight)

    def crash(self, flight: _InFlight, error: Exception | None) -> None:
        """Ends a flight that `depart` began with an error, or as cancelled."""
        if error is None:
            flight.task.cancel()
        elif not flight.task.done():
            flight.task.set_exception(error)
        self.end_flight(flight)

    def on_done(self, flight: _InFlight, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        self.end_flight(flight)

    def end_flight(self, flight: _InFlight) -> None:
        """Nobody can join it any more, and its waiters go on."""
        if not flight.task.cancelled():
            flight.task.exception()  # else asyncio would log it: it may be that nobody waits for it any more
        for key in flight.positions:
            if self.flights.get(key) is flight:  # a smaller one may have replaced it
                del self.flights[key]
        flight.end()

    async def embed_missing(self, prepared: Prepared[_Deduplicated[WorkT]], places: list[int]) -> _EmbeddedEntries:
        """Embeds some distinct inputs and caches them, with the token counts that come with the vectors, if any."""
        distinct = prepared.work
        inner = distinct.prepared
        if inner is None or places != distinct.missing:
            again = prepared.inputs.only([distinct.first[place] for place in places])
            inner = await self.embedder.prepare(again) if distinct.select is None else distinct.select(places)
        vectors = await self.embedder.embed(inner)
        counts = vectors.token_counts or inner.token_counts
        parts = zip(vectors.by_input(), counts, inner.is_long, strict=True)
        entries = [Entry(row.tobytes(), num_tokens, is_long) for row, num_tokens, is_long in parts]
        if self.is_shared and self.is_current(distinct):
            for place, entry in zip(places, entries, strict=True):
                self.cache.put(distinct.keys[place], entry)
        return _EmbeddedEntries(entries, vectors.stages)

    def describe(self) -> Description:
        return self.embedder.describe()

    def health(self) -> Health:
        return self.embedder.health()

    async def close(self) -> None:
        """Closes the embedder. That fails the waiting work and so ends the flights; those of a device that hangs are cancelled."""
        await self.embedder.close()
        if self.tasks:
            _, hanging = await asyncio.wait(self.tasks, timeout=CLOSE_SECONDS)
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)


def is_large(inputs: Inputs) -> bool:
    """Whether the digests of its texts, token ids and query take longer than the event loop may."""
    if len(inputs.texts) > MAX_ON_LOOP_INPUTS:
        return True
    num_chars = len(inputs.query or "") + sum(map(len, inputs.texts))
    if inputs.token_ids is not None:
        num_chars += ID_CHARS * sum(len(ids) for ids in inputs.token_ids if ids)
    return num_chars > MAX_ON_LOOP_CHARS


def _joined(rows: list[bytes], about: Description) -> tuple[Float32, list[int] | None]:
    """The entries' rows as one array, and the rows of each if their number varies. Raises InvalidValue if they are too many."""
    width = about.row_width
    if width is None:
        numbers = np.frombuffer(rows[0] if len(rows) == 1 else b"".join(rows), dtype=np.float32)
        return numbers.reshape(len(rows), -1), None
    if sum(map(len, rows)) > FLOAT_BYTES * MAX_NUMBERS:
        raise too_many_numbers()
    numbers = np.frombuffer(b"".join(rows), dtype=np.float32)
    return numbers.reshape(-1, width), [len(row) // (FLOAT_BYTES * width) for row in rows]


async def _wait_ended(flights: set[_InFlight]) -> None:
    """Waits until all flights have ended in any way."""
    waiters = {flight: flight.join() for flight in flights}
    try:
        for waiter in waiters.values():
            await waiter
    finally:
        for flight, waiter in waiters.items():
            flight.leave(waiter)


def _counts_of(entries: list[Entry | None], missing: list[int], prepared: Prepared[object] | None) -> tuple[list[int], list[bool]]:
    """Each distinct input's number of tokens, and whether it is long: those of its entry, or as it was prepared."""
    if prepared is not None and len(missing) == len(entries):
        return prepared.token_counts, prepared.is_long
    token_counts = [entry.num_tokens if entry else 0 for entry in entries]
    is_long = [entry.is_long if entry else False for entry in entries]
    if prepared is not None:
        for place, count, long in zip(missing, prepared.token_counts, prepared.is_long, strict=True):
            token_counts[place], is_long[place] = count, long
    return token_counts, is_long


def _places_of(keys: list[Key], distinct: list[Key]) -> tuple[list[int], list[int]]:
    """The place of each key among the distinct ones, and the index at which each distinct one appears first."""
    if len(keys) == len(distinct):
        every = list(range(len(keys)))
        return every, every
    numbers = {key: number for number, key in enumerate(distinct)}
    places = [numbers[key] for key in keys]
    return places, first_positions(places)


def first_positions(places: list[int]) -> list[int]:
    """The index at which each place appears first; places are numbered in order of appearance."""
    first: list[int] = []
    for index, place in enumerate(places):
        if place == len(first):
            first.append(index)
    return first
