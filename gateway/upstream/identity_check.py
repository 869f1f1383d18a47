"""Constancy check: whether an endpoint still gives the measured vectors, by a short probe and by what it reports of itself."""

import asyncio
from contextlib import suppress

from gateway.upstream import failures
from gateway.upstream.failures import AttemptFailed
from gateway.upstream.load_balancing import Endpoint
from gateway.upstream.measure import UNREADABLE, Prober
from gateway.upstream.probe import FAR, TEXTS, Reference, distances

STRANGE = UNREADABLE | {"no_embedder", "unexpected"}  # outcomes of a server that is no longer what it was


class ConstancyCheck:
    """`reported` is what each endpoint reported of itself when it was measured; `max_seconds` bounds one check."""

    def __init__(self, prober: Prober, *, max_seconds: float) -> None:
        self.prober = prober
        self.max_seconds = max_seconds
        self.reported: dict[Endpoint, str] = {}

    async def gives(self, endpoint: Endpoint, reference: Reference) -> bool:
        """Whether it still gives these vectors, and reports the same of itself. Raises AttemptFailed if it cannot be probed."""
        try:
            async with asyncio.timeout(self.max_seconds):
                return await self.has_same_vectors(endpoint, reference) and await self.has_same_identity(endpoint)
        except AttemptFailed as failed:
            if failed.failure.outcome in STRANGE:
                return False
            raise
        except TimeoutError:
            raise AttemptFailed(failures.of_transport_error("timeout", self.prober.client.upstream)) from None

    async def has_same_vectors(self, endpoint: Endpoint, reference: Reference) -> bool:
        """Compares vectors by one short probe, or by up to three if that leaves a doubt. Of a reranker always by three.

        One score may be another model's by chance.
        """
        client = self.prober.client
        if client.has_given_logits and client.known.own.are_probabilities:
            return False
        theirs = client.known.theirs
        num_same = 0
        for index, text in enumerate(TEXTS):
            found = await self.prober.alone(endpoint, text)
            apart = float(distances(found.rows, reference.rows[index : index + 1])[0])
            if apart > max(FAR, reference.tolerance) or found.theirs != theirs:
                return False
            num_same += apart <= reference.tolerance
            if num_same and not client.is_reranker:
                return True
        return num_same > 0

    async def has_same_identity(self, endpoint: Endpoint) -> bool:
        """Compares what it reports of itself, which costs nothing. Returns True if it reports nothing, or is unavailable now."""
        before = self.reported.get(endpoint)
        if not before:
            return True
        with suppress(AttemptFailed):
            return (await self.prober.client.fetch_limits(endpoint)).identity in {before, ""}
        return True
