"""Why a request was refused: found by group testing (Dorfman 1943), that is bisection, without knowing the server's words.

    the server   a known-good text, asked for in the same way, is refused too: the failure stays as it came, and counts against it
    an input     it fails alone, and the known-good text passes after it: the client is told which one, and why as far as is known
    the size     both halves pass that fail together: too many inputs, bytes or tokens for one request. Which of them it is two
                 controls tell, as many known-good texts and one with as many bytes of white space behind its JSON; what neither
                 explains are the tokens, if the same inputs fail once more. It is learned (`request_limits`), and never met again

One bad input among n costs at most 2 log2(n) + 2 further requests: the left half is asked first, the right one only where that
passes; the known-good text where the first half fails, and at the end. So a server that dies meanwhile is not taken for an input.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from gateway.config import LongInput
from gateway.embedding.embedder import Inputs, Vectors
from gateway.upstream import failures
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.estimate import estimated_tokens
from gateway.upstream.failures import AttemptFailed, Failure
from gateway.upstream.probe import TEXTS
from gateway.upstream.refusal import OK, UpstreamRefusal
from gateway.upstream.request_limits import Setting
from gateway.upstream.split import PartSize

if TYPE_CHECKING:
    from gateway.upstream.client import UpstreamClient

MAX_ROUNDS = 6  # of halving that one request may cost: one for each kind of limit, one for a bad input, two more for tokens
ROUND_EXTRA = 20  # requests of a round beside the halving: controls, and the bisection of a limit
EXACT_BELOW = 128  # inputs; a limit beyond is found to a sixteenth
ORDER: dict[str | None, tuple[Setting, ...]] = {
    None: ("max_inputs", "max_body_bytes", "max_request_tokens"),
    "bytes": ("max_body_bytes", "max_inputs", "max_request_tokens"),
    "tokens": ("max_request_tokens",),
}


class HalvingBudget:
    """What one request may cost beyond itself: six times what a bad input, or a limit, takes to be found."""

    def __init__(self, num_inputs: int) -> None:
        self.num_left = MAX_ROUNDS * (2 * math.ceil(math.log2(max(2, num_inputs))) + ROUND_EXTRA)

    def spend(self) -> bool:
        self.num_left -= 1
        return self.num_left >= 0


class Trial(NamedTuple):
    """What was asked, where, and how: `byte_counts[i]` are what text i takes of the body, `overhead_bytes` the rest of it."""

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
    """The server takes what was asked, but not the encoding it was asked for in."""


class Diagnosis:
    """Of one request that was refused. Everything raises AttemptFailed where asking fails in another way than by a refusal."""

    def __init__(self, client: "UpstreamClient", trial: Trial, budget: HalvingBudget) -> None:
        self.client = client
        self.limits = client.limits
        self.trial = trial
        self.budget = budget
        self.passed: list[Passed] = []

    async def find(self, failure: Failure) -> list[Passed]:
        """What passed meanwhile, once the rest may pass too. Raises AttemptFailed with what is the client's, or the server's."""
        part, is_alive = slice(0, len(self.trial.inputs.texts)), False
        while size_of(part) > 1:
            if self.limits.excludes(self.measure(part)):  # another request has found it out
                return self.passed
            left, right = halves_of(part)
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
        """Raises AttemptFailed. A text that was asked for once, and failed by what may pass, is asked for again first."""
        await self.require_alive(failure)
        is_first = len(self.trial.inputs.texts) == 1 and not failure.may_retry
        if is_first and failure.is_fault and self.client.settings.retry:
            again = await self.failure_of(part)
            if again is None:
                return self.passed
            failure = again
        refusal = failure.refusal or UpstreamRefusal(OK)
        count = self.trial.counts[part.start]
        if refusal.max_tokens is None and count <= self.client.upstream.max_tokens:  # fewer than were sent, as far as one can tell
            refusal = replace(refusal, max_tokens=max(1, count - 1))
        where = self.trial.inputs.where(part.start)
        raise AttemptFailed(failures.of_own_trouble(refusal, where, failure.code, self.client.upstream), self.trial.endpoint)

    async def require_alive(self, failure: Failure) -> None:
        """Raises AttemptFailed with the failure where a known-good text fails too, Base64Refused where it does only as bytes."""
        if await self.does_pass():
            return
        if self.trial.as_base64 and not failure.is_fault:
            self.trial = self.trial._replace(as_base64=False)
            if await self.does_pass():
                raise Base64Refused
        raise AttemptFailed(replace(failure, is_undecided=False), self.trial.endpoint)

    async def learn(self, part: slice, left: slice, right: slice, failure: Failure) -> None:
        """Of inputs that only fail together: what of them is too much for one request."""
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
        """The most that passes, as far as it pays to know it: by known-good texts alone."""
        while refused - passing > (1 if setting == "max_inputs" and refused <= EXACT_BELOW else max(1, passing // 16)):
            middle = (passing + refused) // 2
            if await self.does_pass(setting, middle):
                passing = middle
            else:
                refused = middle
        return passing

    async def failure_of(self, part: slice) -> Failure | None:
        """Asks for these inputs. Why they were refused; None where they passed, which is then kept."""
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
        """Whether known-good text passes: so many of them, or one in a body of so many bytes."""
        num_texts = value if setting == "max_inputs" else 1
        inputs = replace(self.trial.inputs, texts=[TEXTS[0]] * num_texts, is_array=True, positions=None, instruction=None)
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


def halves_of(part: slice) -> tuple[slice, slice]:
    """The left one is the larger: it is asked first, and alone where it fails."""
    middle = part.start + (size_of(part) + 1) // 2
    return slice(part.start, middle), slice(middle, part.stop)


def value_of(size: PartSize, setting: Setting) -> int:
    return {"max_inputs": size.num_inputs, "max_request_tokens": size.num_tokens, "max_body_bytes": size.num_bytes or 0}[setting]
