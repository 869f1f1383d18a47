"""Group testing (Dorfman 1943) by bisection: finds out why a request was refused, without knowing the server's words.

    the server   a known-good text, sent in the same way, is refused too: the first failure is raised, and counts against the server
    an input     it fails alone, and the known-good text passes afterwards: the error names the input, and the reason if it is known
    the query    of a reranker: it fails with the known-good text too
    the size     both halves pass, but fail together: too many inputs, bytes or tokens for one request. Two controls decide which:
                 as many known-good texts, and one such text with as many bytes of white space behind its JSON. If both pass, and
                 the same inputs fail once more, it is the tokens. The limit is learned (`request_limits`) and not exceeded again

One bad input among n costs at most 2 log2(n) + 2 further requests. The left half is sent first, the right half only if the left one
passes. The known-good text is sent if the first half fails, and at the end. So a server that dies meanwhile blames no input.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from gateway.config import LongInput
from gateway.embedding.embedder import Inputs, Vectors
from gateway.upstream import failures
from gateway.upstream.estimate import estimated_tokens
from gateway.upstream.failures import AttemptFailed, Failure
from gateway.upstream.load_balancing import Endpoint
from gateway.upstream.parts import PartSize
from gateway.upstream.probe import QUERY, TEXTS
from gateway.upstream.refusal import OK, UpstreamRefusal
from gateway.upstream.request_limits import Setting

if TYPE_CHECKING:
    from gateway.upstream.client import UpstreamClient

MAX_ROUNDS = 6  # of halving that one request may cost: one for each kind of limit, one for a bad input, two more for tokens
ROUND_EXTRA = 20  # requests of a round besides the halving: controls, and the bisection of a limit
EXACT_BELOW = 128  # inputs; a larger limit is found to within a sixteenth
ORDER: dict[str | None, tuple[Setting, ...]] = {
    None: ("max_inputs", "max_body_bytes", "max_request_tokens"),
    "bytes": ("max_body_bytes", "max_inputs", "max_request_tokens"),
    "tokens": ("max_request_tokens",),
}


class HalvingBudget:
    """Bounds the extra requests of one request: six times what it takes to find a bad input, or a limit."""

    def __init__(self, num_inputs: int) -> None:
        self.num_left = MAX_ROUNDS * (2 * math.ceil(math.log2(max(2, num_inputs))) + ROUND_EXTRA)

    def spend(self) -> bool:
        self.num_left -= 1
        return self.num_left >= 0


class Trial(NamedTuple):
    """What was sent, where, and how. Text i takes `byte_counts[i]` of the body; `overhead_bytes` are the rest of it."""

    inputs: Inputs
    counts: list[int]
    byte_counts: list[int]
    overhead_bytes: int
    rule: LongInput
    as_base64: bool
    endpoint: Endpoint


class Passed(NamedTuple):
    part: slice
    vectors: Vectors


class Base64Refused(Exception):
    """The server accepts the request, but not with base64."""


class Diagnosis:
    """Diagnoses one refused request. Every method raises AttemptFailed if a request fails otherwise than by a refusal."""

    def __init__(self, client: "UpstreamClient", trial: Trial, budget: HalvingBudget) -> None:
        self.client = client
        self.limits = client.limits
        self.trial = trial
        self.budget = budget
        self.passed: list[Passed] = []

    async def find(self, failure: Failure) -> list[Passed]:
        """Returns what passed meanwhile, once the rest may pass too. Raises AttemptFailed for a bad input or a failing server."""
        part, is_alive = slice(0, len(self.trial.inputs.texts)), False
        while size_of(part) > 1:
            if self.limits.excludes(self.measure(part)):  # another request has learned the limit meanwhile
                return self.passed
            left, right = _halves_of(part)
            failed = await self.failure_of(left)
            if failed is not None and not is_alive:
                await self.require_alive(failure)
            is_alive = True
            if failed is None:
                failed = await self.failure_of(right)
                if failed is None:
                    await self.learn(part, left, right, failure)
                    return self.passed
                left = right
            part, failure = left, failed
        return await self.blame(part, failure)

    async def blame(self, part: slice, failure: Failure) -> list[Passed]:
        """Blames the one input that is left. If it was sent alone only once, and may pass the next time, it is sent again first.

        Returns what passed if it now passes. Raises AttemptFailed otherwise.
        """
        await self.require_alive(failure)
        is_single, may_send_again = len(self.trial.inputs.texts) == 1, self.client.settings.retry
        if failure.is_broken and is_single and not may_send_again:  # once may be chance
            raise AttemptFailed(failure, self.trial.endpoint)
        is_first = is_single and failure.is_fault and not failure.may_retry
        if (is_first or failure.is_broken) and may_send_again:
            again = await self.failure_of(part)
            if again is None:
                return self.passed
            failure = again
        where, count = self.trial.inputs.where(part.start), self.trial.counts[part.start]
        query = self.trial.inputs.query
        if query is not None and (of_query := await self.failure_of_query(query)) is not None:
            failure, where, count = of_query, "query", estimated_tokens(query)
        refusal = failure.refusal or UpstreamRefusal(OK)
        if refusal.max_tokens is None and count <= self.client.upstream.max_tokens:  # fewer than were sent, by our estimate
            refusal = replace(refusal, max_tokens=max(1, count - 1))
        raise AttemptFailed(failures.of_own_trouble(refusal, where, failure.code, self.client.upstream), self.trial.endpoint)

    async def failure_of_query(self, query: str) -> Failure | None:
        """Sends a reranker's query with a known-good document. Returns why that was refused, or None if it passed."""
        inputs = replace(self.trial.inputs, texts=[TEXTS[0]], positions=None)
        try:
            await self.ask(inputs, [estimated_tokens(query) + estimated_tokens(TEXTS[0])], rule=self.trial.rule)
        except AttemptFailed as failed:
            if failed.failure.refusal is None:
                raise
            return failed.failure
        return None

    async def require_alive(self, failure: Failure) -> None:
        """Raises AttemptFailed with the failure if a known-good text fails too, Base64Refused if it fails only with base64."""
        if await self.does_pass():
            return
        if self.trial.as_base64 and not failure.is_fault:
            self.trial = self.trial._replace(as_base64=False)
            if await self.does_pass():
                raise Base64Refused
        raise AttemptFailed(replace(failure, is_undecided=False), self.trial.endpoint)

    async def learn(self, part: slice, left: slice, right: slice, failure: Failure) -> None:
        """Learns which limit is exceeded by inputs that fail only together."""
        refused, halves = self.measure(part), (self.measure(left), self.measure(right))
        hint = failure.refusal.hint if failure.refusal is not None else None
        async with self.limits.lock:
            for setting in ORDER[hint]:
                if self.limits.excludes(refused):
                    return
                least, most = max(value_of(half, setting) for half in halves), value_of(refused, setting)
                if setting == "max_request_tokens":
                    if await self.failure_of(part) is not None:
                        self.limits.learn(setting, least)
                elif not await self.does_pass(setting, most):
                    self.limits.learn(setting, await self.bisect(setting, least, most))

    async def bisect(self, setting: Setting, passing: int, refused: int) -> int:
        """Bisects a limit with known-good texts alone. Returns the most that was seen to pass."""
        while refused - passing > (1 if setting == "max_inputs" and refused <= EXACT_BELOW else max(1, passing // 16)):
            middle = (passing + refused) // 2
            if await self.does_pass(setting, middle):
                passing = middle
            else:
                refused = middle
        return passing

    async def failure_of(self, part: slice) -> Failure | None:
        """Sends these inputs, and keeps their vectors if they pass. Returns why they were refused, or None if they passed."""
        trial = self.trial
        inputs = trial.inputs.only(list(range(part.start, part.stop)))
        try:
            vectors = await self.ask(inputs, trial.counts[part], rule=trial.rule)
        except AttemptFailed as failed:
            if failed.failure.refusal is None or not failed.failure.is_undecided:
                raise
            return failed.failure
        self.passed = [*(each for each in self.passed if each.part.stop <= part.start or each.part.start >= part.stop)]
        self.passed.append(Passed(part, vectors))
        return None

    async def does_pass(self, setting: Setting = "max_inputs", value: int = 1) -> bool:
        """Whether known-good text passes: `value` texts, or one text in a body of `value` bytes."""
        num_texts = value if setting == "max_inputs" else 1
        own = self.trial.inputs
        query = QUERY if own.query is not None else None
        inputs = replace(own, texts=[TEXTS[0]] * num_texts, is_array=True, positions=None, instruction=None, query=query)
        counts = [estimated_tokens(TEXTS[0])] * num_texts
        padded_to = value if setting == "max_body_bytes" else 0
        try:
            await self.ask(
                inputs, counts, rule=self.trial.rule, padded_to=padded_to, is_known_good=num_texts == 1 and not padded_to
            )
        except AttemptFailed as failed:
            if failed.failure.refusal is None:
                raise
            return False
        return True

    async def ask(
        self, inputs: Inputs, counts: list[int], *, rule: LongInput, padded_to: int = 0, is_known_good: bool = False
    ) -> Vectors:
        if not self.budget.spend():
            reason = "refuses requests for reasons that could not be found out"
            raise AttemptFailed(failures.of_unknown_refusal(reason, self.client.upstream), self.trial.endpoint)
        self.client.metrics.extra_requests.inc()
        return await self.client.ask(
            inputs, counts, rule, as_base64=self.trial.as_base64, endpoint=self.trial.endpoint, padded_to=padded_to,
            is_known_good=is_known_good,
        )  # fmt: skip

    def measure(self, part: slice) -> PartSize:
        num_bytes = self.trial.overhead_bytes + sum(self.trial.byte_counts[part])
        return PartSize(size_of(part), sum(self.trial.counts[part]), num_bytes)


def size_of(part: slice) -> int:
    return int(part.stop - part.start)


def _halves_of(part: slice) -> tuple[slice, slice]:
    """The left half is the larger: it is sent first, and the right one not at all if the left one fails."""
    middle = part.start + (size_of(part) + 1) // 2
    return slice(part.start, middle), slice(middle, part.stop)


def value_of(size: PartSize, setting: Setting) -> int:
    return {"max_inputs": size.num_inputs, "max_request_tokens": size.num_tokens, "max_body_bytes": size.num_bytes or 0}[setting]
