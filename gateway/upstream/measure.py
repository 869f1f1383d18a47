"""Measures one endpoint: what it reports, which vectors it gives, how far its replies to one text lie apart.

Of a reranker it first finds out how it is asked (`rerank_api`).

Sends six short requests (some 350 tokens), when a row is loaded and when its server turns out to have changed: the first text twice
alone, as numbers and as base64; the two others alone; and twice all of them in one batch.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from gateway.embedding.vectors import Float32
from gateway.log import get_logger
from gateway.upstream import failures
from gateway.upstream.client import Known, Sample, UpstreamClient
from gateway.upstream.dialect import SAME, ServerApi, UpstreamLimits
from gateway.upstream.failures import AttemptFailed
from gateway.upstream.load_balancing import Endpoint
from gateway.upstream.probe import (
    COMPANY,
    FAR,
    FAR_SCORES,
    NOISE_FLOOR,
    QUERY,
    TEXTS,
    UNIT_TOLERANCE,
    Reference,
    build_reference,
    distances,
    fault_of,
    unit,
)
from gateway.upstream.rerank_api import find_rerank_api
from gateway.upstream.unnormalized import OWN

NUM_TRIES = 3  # of a probe whose failure may be momentary
TWO_MODELS = "gives two different vectors for one text, asked twice: two models answer in turn at its address, or it is no embedder"

log = get_logger()


@dataclass(frozen=True, slots=True)
class Measurement:
    """`is_alone`: the server gives a text another vector in a batch than alone, so each text must be sent alone.

    `max_inputs` is how many texts it accepts at once, if that is fewer than were sent.
    """

    reported: UpstreamLimits
    reference: Reference
    known: Known
    is_alone: bool
    is_unit: bool
    max_inputs: int | None = None


class Prober:
    """Probes one endpoint at a time. Every method raises AttemptFailed, also for replies that no embedder gives."""

    def __init__(self, client: UpstreamClient) -> None:
        self.client = client

    async def measure(self, endpoint: Endpoint) -> Measurement:
        client = self.client
        reported = await self.fetch_limits(endpoint)
        own = await self.find_own_api(endpoint)
        first = await self.sample(endpoint, [TEXTS[0]], api=own)
        as_bytes, second = await self.as_base64(endpoint, first, own)
        others = await asyncio.gather(*(self.sample(endpoint, [text], api=own) for text in TEXTS[1:]))
        alone = [[client.directions(first.rows)[0], second], *([client.directions(each.rows)[0]] for each in others)]
        self.refuse_two_models([row[None] for row in alone[0]])
        (first_time, max_inputs), (second_time, _) = await self.in_company(endpoint, own), await self.in_company(endpoint, own)
        together = [first_time, second_time]
        if together[0] is not None and together[1] is not None:
            self.refuse_two_models([together[0], together[1]])
        if len({len(row) for rows in alone for row in rows} | {len(rows[0]) for rows in together if rows is not None}) > 1:
            raise AttemptFailed(failures.of_no_embedder(TWO_MODELS, client.upstream))  # the vectors differ in dimensions
        company = [[rows[index] for rows in together if rows is not None] for index in range(len(TEXTS))]
        far = FAR_SCORES if client.is_reranker else FAR
        is_alone = any(
            np.linalg.norm(one[0] - other) > far for one, in_batch in zip(alone, company, strict=True) for other in in_batch
        )
        reference = build_reference(alone if is_alone else [[*one, *more] for one, more in zip(alone, company, strict=True)])
        if fault := fault_of(reference, is_reranker=client.is_reranker):
            what = "scores" if client.is_reranker else "embeddings"
            raise AttemptFailed(failures.of_no_embedder(f"gives no {what}: {fault}", client.upstream))
        if is_alone:
            log.warning("upstream_mixes_texts", model=client.upstream.name, address=endpoint.label, max_inputs=1)
        lengths = [float(np.linalg.norm(each.rows[0].astype(np.float64))) for each in (first, *others)]
        is_unit = all(abs(length - 1) < UNIT_TOLERANCE for length in lengths)
        known = Known(first.rows.shape[1], first.theirs, as_bytes, SAME, own)
        return Measurement(reported, reference, known, is_alone, is_unit, max_inputs)

    async def fetch_limits(self, endpoint: Endpoint) -> UpstreamLimits:
        """Fetches what the server reports of itself. Returns empty limits if it reports nothing and its dialect allows that."""
        if self.client.dialect.requires_info:
            return await self.client.fetch_limits(endpoint)
        for _ in range(2):
            with suppress(AttemptFailed):
                return await self.client.fetch_limits(endpoint)
        return UpstreamLimits()

    async def find_own_api(self, endpoint: Endpoint) -> ServerApi:
        """Finds out how a reranker is asked. An embedder is asked by its dialect's own API."""

        async def sample(texts: list[str], api: ServerApi) -> Float32:
            return (await self.sample(endpoint, texts, api=api, is_known_good=False)).rows

        return await find_rerank_api(self.client, sample)

    async def sample(  # noqa: PLR0913 - what to send, and how
        self,
        endpoint: Endpoint,
        texts: list[str],
        *,
        as_base64: bool = False,
        api: ServerApi | None = None,
        query: str = QUERY,
        is_known_good: bool = True,
    ) -> Sample:
        """Embeds probe texts, and retries momentary failures, as a request would."""
        ask = partial(self.client.sample, endpoint, texts, as_base64=as_base64, api=api, query=query, is_known_good=is_known_good)
        for num_failures in range(1, NUM_TRIES):
            try:
                return await ask()
            except AttemptFailed as failed:
                if not failed.failure.may_retry:
                    raise
                await asyncio.sleep(failed.failure.pause_seconds(num_failures))
        return await ask()

    async def as_base64(self, endpoint: Endpoint, as_numbers: Sample, own: ServerApi) -> tuple[bool, Float32]:
        """Compares base64 with numbers. Returns whether its base64 is float32, and a second vector of the first text."""
        client = self.client
        if not client.dialect.knows_base64:
            return False, client.directions((await self.sample(endpoint, [TEXTS[0]], api=own)).rows)[0]
        if as_numbers.is_bytes and not _has_usual_length(as_numbers.rows):
            reason = "gives base64 that is not float32, and nothing else"
            raise AttemptFailed(failures.of_no_embedder(reason, client.upstream))
        try:
            found = await self.sample(endpoint, [TEXTS[0]], as_base64=True)
        except AttemptFailed as failed:
            if failed.failure.outcome not in UNREADABLE:
                raise
        else:
            if not found.is_bytes or as_numbers.is_bytes or _are_alike(found.rows, as_numbers.rows):
                return found.is_bytes, unit(found.rows)[0]
        second = await self.sample(endpoint, [TEXTS[0]])
        if _are_alike(second.rows, as_numbers.rows):  # else two models reply in turn, and base64 is not to blame
            log.warning("upstream_base64_is_not_float32", model=client.upstream.name, address=endpoint.label)
        return False, unit(second.rows)[0]

    async def in_company(self, endpoint: Endpoint, own: ServerApi) -> tuple[Float32 | None, int | None]:
        """Embeds TEXTS and PADDING in one request: a batch that can never work is found here, not by a client with two texts.

        Returns the vectors of TEXTS, or None if it accepts fewer at once; and how many texts it accepts, or None if all.
        """
        most = min(len(COMPANY), self.client.limits.max_inputs)
        for size in range(most, 1, -1):
            try:
                rows = self.client.directions((await self.sample(endpoint, list(COMPANY)[:size], api=own)).rows)
            except AttemptFailed as failed:
                if failed.failure.refusal is None:
                    raise
            else:
                return rows[: len(TEXTS)] if size >= len(TEXTS) else None, size if size < most else None
        if most > 1:
            await self.sample(endpoint, [TEXTS[0]], api=own)  # raises if it is the server that fails
        return None, 1 if most > 1 else None

    def refuse_two_models(self, answers: list[Float32]) -> None:
        """Compares two replies to the same texts, shape (n, dimensions). Raises AttemptFailed if they are of two models."""
        one, other = answers
        if float(distances(one, other).max()) > FAR:
            raise AttemptFailed(failures.of_no_embedder(TWO_MODELS, self.client.upstream))

    async def alone(self, endpoint: Endpoint, text: str) -> Sample:
        """Embeds one text, without a retry. Returns its vector, of length 1, shape (1, dimensions)."""
        found = await self.client.sample(endpoint, [text])
        return replace(found, rows=self.client.directions(found.rows))

    async def find_raw_api(self, endpoints: list[Endpoint], reference: Reference) -> ServerApi | None:
        """Finds the API by which all these endpoints give unnormalised vectors. Returns None if there is none."""
        for api in OWN:
            try:
                found = [await self.client.sample(endpoint, [TEXTS[0]], api=api, normalize=False) for endpoint in endpoints]
            except AttemptFailed as failed:
                if failed.failure.outcome in PASSING:
                    raise
                continue
            if all(distances(unit(each.rows), reference.rows[:1])[0] <= max(FAR / 2, reference.tolerance) for each in found):
                return api
        return None


PASSING = {"connect", "timeout", "rate_limited", "status_503", "status_504"}  # prove nothing about the server's model
UNREADABLE = {"nonsense", "unembeddable", "bad_request", "other_vectors"}


def _has_usual_length(rows: Float32) -> bool:
    """Whether base64 was float32. Half or double precision, or the other byte order, read as float32 is tiny or huge."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    return bool(((lengths > 1e-3) & (lengths < 1e4)).all())  # noqa: PLR2004 - as the docstring says


def _are_alike(one: Float32, other: Float32) -> bool:
    """Whether two replies are the same numbers, up to noise, and not only the same direction."""
    if one.shape != other.shape:
        return False
    length = float(np.linalg.norm(other.astype(np.float64)))
    return float(np.linalg.norm((one - other).astype(np.float64))) <= max(FAR, NOISE_FLOOR) * length
