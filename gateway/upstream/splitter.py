"""Embeds a request in as many upstream requests as it needs: split by their limits, and sent differently if one is refused."""

import asyncio
from dataclasses import replace

import numpy as np

from gateway.config import LongInput
from gateway.embedding.embedder import Inputs, Vectors
from gateway.upstream import failures
from gateway.upstream.bisection import Base64Refused, Diagnosis, HalvingBudget, Passed, Trial
from gateway.upstream.client import UpstreamClient
from gateway.upstream.failures import AttemptFailed, Failure, UpstreamInfo
from gateway.upstream.parts import parts


class RequestSplitter:
    """Every method raises AttemptFailed. What it learns is kept in the client: its limits, and whether base64 works."""

    def __init__(self, client: UpstreamClient) -> None:
        self.client = client

    async def embed(self, inputs: Inputs, counts: list[int], rule: LongInput, budget: HalvingBudget | None = None) -> Vectors:
        """Sends as many requests as the upstream needs, some of them at once. The first that fails cancels the others."""
        budget = budget or HalvingBudget(len(inputs.texts))
        slices = await self.parts(inputs, counts, rule)
        if len(slices) == 1:
            return await self.part(inputs, counts, rule, budget)
        places = asyncio.Semaphore(self.client.settings.max_parallel)

        async def one(each: slice) -> Vectors:
            await places.acquire()
            vectors = await self.part(_some_of(inputs, each), counts[each], rule, budget)
            places.release()  # not after a failure: parts that still wait are then never sent
            return vectors

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(each), name="upstream-part") for each in slices]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return join([task.result() for task in tasks], self.client.upstream)

    async def parts(self, inputs: Inputs, counts: list[int], rule: LongInput) -> list[slice]:
        most = self.client.limits.most
        if most.num_bytes is None:
            return parts(counts, most)
        overhead, byte_counts = await self.client.byte_counts(inputs, rule)
        return parts(counts, replace(most, num_bytes=max(1, most.num_bytes - overhead)), byte_counts=byte_counts)

    async def part(self, inputs: Inputs, counts: list[int], rule: LongInput, budget: HalvingBudget) -> Vectors:
        """Sends one request. If the upstream refuses it, finds out why, and sends it differently if that may help."""
        as_base64 = self.client.known.as_base64  # concurrent parts may learn meanwhile that base64 does not work
        try:
            return await self.client.ask(inputs, counts, rule, as_base64=as_base64)
        except AttemptFailed as failed:
            failure, endpoint = failed.failure, failed.endpoint
            if not failure.is_undecided or endpoint is None:
                raise
        if self.adapt(failure, len(inputs.texts), as_base64=as_base64):
            return await self.embed(inputs, counts, rule, budget)
        overhead, byte_counts = await self.client.byte_counts(inputs, rule)
        diagnosis = Diagnosis(self.client, Trial(inputs, counts, byte_counts, overhead, rule, as_base64, endpoint), budget)
        if failure.refusal is None:  # a time-out, which is not halved: all that matters is whether it is alive
            await diagnosis.require_alive(failure)
            raise AttemptFailed(failure, endpoint)
        try:
            passed = sorted(await diagnosis.find(failure), key=lambda each: each.part.start)
        except Base64Refused:
            self.client.without_base64()
            passed = []
        return await self.complete(passed, inputs, counts, rule, budget)

    async def complete(
        self, passed: list[Passed], inputs: Inputs, counts: list[int], rule: LongInput, budget: HalvingBudget
    ) -> Vectors:
        """Embeds the inputs that have not passed yet. Returns the vectors of all, in order."""
        found, start = [], 0
        for each in [*passed, None]:
            gap = slice(start, each.part.start if each is not None else len(inputs.texts))
            if gap.stop > gap.start:
                found.append(await self.embed(_some_of(inputs, gap), counts[gap], rule, budget))
            if each is not None:
                found.append(each.vectors)
                start = each.part.stop
        return join(found, self.client.upstream)

    def adapt(self, failure: Failure, num_inputs: int, *, as_base64: bool) -> bool:
        """Learns from a refusal's text. Returns whether the same inputs may pass if they are sent as they will be from now on."""
        refusal = failure.refusal
        if refusal is not None and refusal.max_inputs and refusal.max_inputs < num_inputs:
            self.client.limits.learn("max_inputs", refusal.max_inputs)
            return True
        if refusal is not None and refusal.no_base64 and as_base64:
            self.client.without_base64()
            return True
        return False


def join(found: list[Vectors], upstream: UpstreamInfo) -> Vectors:
    if len({each.rows.shape[1] for each in found}) > 1:  # the model was changed between two of them
        raise AttemptFailed(failures.of_other_vectors("gave vectors of two models to one request", upstream))
    rows = np.concatenate([each.rows for each in found])
    return Vectors(rows, token_counts=[count for each in found for count in each.token_counts or ()])


def _some_of(inputs: Inputs, part: slice) -> Inputs:
    return inputs.only(list(range(part.start, part.stop)))
