"""How long a text may be that every used endpoint of a row reads whole, as far as it is known (`truncation`)."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np

from gateway.background import launch
from gateway.embedding.vectors import Float32
from gateway.log import get_logger
from gateway.upstream import failures
from gateway.upstream.failures import AttemptFailed
from gateway.upstream.load_balancing import Endpoint, Endpoints
from gateway.upstream.measure import Prober
from gateway.upstream.probe import QUERY, TEXTS, Reference
from gateway.upstream.truncation import Truncation, most_tokens
from gateway.upstream.vector_space import Space

MAX_ON_LOOP_CHARS = 256 * 1024
SCORE_NOISE = 1e-4  # of points: identical texts in one request have scores that are nearer

log = get_logger()


class Reach:
    """Used only on the event loop. Every method that sends a request raises AttemptFailed."""

    def __init__(self, endpoints: Endpoints, prober: Prober, space: Callable[[], Space]) -> None:
        self.endpoints = endpoints
        self.prober = prober
        self.space = space
        self.known: dict[Endpoint, Truncation] = {}
        self.lock = asyncio.Lock()
        self.task: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """Forgets all measurements: another model reads other lengths."""
        self.known = {}

    @property
    def cutting(self) -> dict[Endpoint, Truncation]:
        return {endpoint: known for endpoint, known in self.known.items() if known.cut and endpoint.proof == "used"}

    @property
    def is_cutting(self) -> bool:
        return bool(self.cutting)

    @property
    def keeps_the_beginning(self) -> bool:
        return self.is_cutting and all(known.cut == "end" for known in self.cutting.values())

    @property
    def max_tokens(self) -> int:
        """The tokens that are surely read if a cut is known: the lower bound, as counts are estimates."""
        return max(1, min((known.proven for known in self.cutting.values()), default=1))

    async def cover(self, texts: list[str], query: str | None = None) -> None:
        """Finds out whether any used endpoint silently truncates texts this long. Goes on if the request that started it leaves."""
        longest = max(await self.most_tokens(texts, query))
        while any(self.is_open(endpoint, longest) for endpoint in self.endpoints.used):
            if self.task is None or self.task.done():
                self.task = launch(self.measure_truncation(longest), name=f"reach-{self.prober.client.upstream.name}")
            await asyncio.shield(self.task)

    def is_open(self, endpoint: Endpoint, num_tokens: int) -> bool:
        known = self.known.get(endpoint)
        return known is None or known.next_words(num_tokens) is not None

    async def measure_truncation(self, num_tokens: int) -> None:
        for endpoint in self.endpoints.used:
            known = self.known.get(endpoint)
            if known is None:
                is_reranker = self.prober.client.is_reranker
                known = Truncation(partial(self.ask, endpoint), _tolerance_of(self.space().reference, is_reranker), is_reranker)
            self.known[endpoint], found = known, known.cut
            await known.cover(num_tokens)
            if known.cut != found:
                log.warning(
                    "upstream_cuts_texts", model=self.prober.client.upstream.name, address=endpoint.label, part=known.cut,
                    max_tokens=known.proven,
                    hint="it embeds a part of a long text and does not say so: longer texts are refused unless long_input is end",
                )  # fmt: skip

    async def first_cut(self, texts: list[str], query: str | None = None) -> int | None:
        """Returns the index of the first text that would be silently truncated, or None."""
        if not self.is_cutting:
            return None
        for index, most in enumerate(await self.most_tokens(texts, query)):
            for known in self.cutting.values():
                if most > known.proven and not await known.is_whole(texts[index], query):
                    return index
        return None

    async def cuts_query(self, query: str, texts: list[str]) -> bool:
        """Whether a reranker's query would be silently truncated beside the longest of the texts.

        Only a query of more than half of what is read can be: tokenizers shorten the longer of the two first.
        """
        counts = await self.most_tokens(texts, query)
        longest = max(range(len(texts)), key=counts.__getitem__)
        for known in self.cutting.values():
            may_be_cut = counts[longest] > known.proven and 2 * most_tokens(query) > known.proven
            if may_be_cut and not await known.is_query_whole(query, texts[longest]):
                return True
        return False

    async def most_tokens(self, texts: list[str], query: str | None = None) -> list[int]:
        """An upper bound for each text, with the query that a reranker reads beside it."""
        own = most_tokens(query) if query is not None else 0
        if sum(map(len, texts)) > MAX_ON_LOOP_CHARS:
            return await asyncio.to_thread(lambda: [own + most_tokens(text) for text in texts])
        return [own + most_tokens(text) for text in texts]

    async def ask(self, endpoint: Endpoint, texts: list[str], query: str = QUERY) -> Float32 | None:
        """Embeds texts in one request, or one by one if it must or that is refused. Returns None if a single text is refused."""
        if self.prober.client.limits.max_inputs >= len(texts):
            with suppress(TooLong):
                return await self.rows_of(endpoint, texts, query)
        try:
            return np.concatenate([await self.rows_of(endpoint, [text], query) for text in texts])
        except TooLong:
            return None

    async def rows_of(self, endpoint: Endpoint, texts: list[str], query: str) -> Float32:
        prober = self.prober
        try:
            rows = prober.client.directions((await prober.sample(endpoint, texts, query=query, is_known_good=False)).rows)
        except AttemptFailed as failed:
            if failed.failure.outcome == "too_long":
                raise TooLong from None
            if failed.failure.refusal is None:
                raise
            await self.prober.sample(endpoint, [TEXTS[0]])  # raises if it is the server that fails
            raise TooLong from None
        if rows.shape[1] != self.space().reference.rows.shape[1]:
            raise AttemptFailed(
                failures.of_other_vectors("gave vectors of other dimensions than before", self.prober.client.upstream)
            )
        return rows

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)


def _tolerance_of(reference: Reference, is_reranker: bool) -> float:
    """How far apart two replies to one text may lie, in one request."""
    return max(SCORE_NOISE, 2 * reference.noise) if is_reranker else reference.tolerance


class TooLong(Exception):
    """The server refuses a text of this length, as it should."""
