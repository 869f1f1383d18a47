"""Answers the requests of a slice. Errors that may pass are waited for. Bisection finds the requests that fail.

Requests with the same options are answered together, up to MAX_INPUTS texts. If that fails, the group is halved until a single
request fails, whatever the error's text. If the error blames no input, a text that is known to be good is embedded first: if that
fails too, the model is the cause, and the request waits until it works again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.access.keys.key import Caller
from gateway.background import launch
from gateway.batches.endpoint import Answers, Asked, BatchRoad, Use
from gateway.batches.job import BatchJob
from gateway.batches.slice import Slice
from gateway.bulk.fault import ERRORS, may_pass, names_input
from gateway.bulk.row import Position
from gateway.bulk.shard import MAX_ROWS
from gateway.errors import ClientError, GatewayError, InsufficientQuota, InternalError, RateLimited
from gateway.log import get_logger
from gateway.wire import batch_lines
from gateway.wire.batch_lines import BatchRequest

MAX_INPUTS = MAX_ROWS  # texts that are embedded together
ALONE_AT_ONCE = 16
QUOTA_SECONDS = 60.0  # between looks whether a spent budget was renewed

log = get_logger()

Wait = Callable[[GatewayError | None, int], Awaitable[None]]  # with the number of failures so far


@dataclass(slots=True)
class AnsweredSlice:
    """The lines of both files, in the input's order, and what the requests used."""

    next: Position
    outputs: bytes
    errors: bytes
    num_outputs: int
    num_errors: int
    uses: list[Use]


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request, and what its body asks for."""

    request: BatchRequest
    asked: Asked


@dataclass(slots=True)
class _Outcomes:
    """The replies so far, by line."""

    outputs: dict[int, bytes] = field(default_factory=dict)
    errors: dict[int, bytes] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)

    def of_slice(self, piece: Slice) -> AnsweredSlice:
        outputs, errors = (b"".join([lines[line] for line in sorted(lines)]) for lines in (self.outputs, self.errors))
        return AnsweredSlice(piece.next, outputs, errors, len(self.outputs), len(self.errors), self.uses)


class BatchWorker:
    """Answers at most `in_flight` slices of one batch at once; more may be parsed meanwhile.

    `caller` gives the key's owner, as it is now, `default_model` the model of requests that name none. `check` raises if no further
    slice is to be begun. `wait` pauses before another attempt, and raises if there is to be none.
    """

    def __init__(  # noqa: PLR0913 - what it asks of the run
        self,
        job: BatchJob,
        road: Callable[[], BatchRoad],
        *,
        caller: Callable[[], Caller],
        default_model: Callable[[], Awaitable[str | None]],
        check: Callable[[], None],
        wait: Wait,
        in_flight: int,
    ) -> None:
        self.job = job
        self.road = road
        self.caller = caller
        self.default_model = default_model
        self.check = check
        self.wait = wait
        self.slots = asyncio.Semaphore(in_flight)
        self.has_begun = asyncio.Event()  # the slice before the next one
        self.has_begun.set()

    async def run(self, piece: Slice) -> AnsweredSlice:
        """Raises OtherVectors, and what `caller`, `default_model`, `check` and `wait` raise."""
        outcomes, before, now = _Outcomes(), self.has_begun, asyncio.Event()
        self.has_begun = now
        groups = await asyncio.to_thread(self.groups, piece, outcomes, await self.default_model())
        await before.wait()  # a slice that was parsed faster does not overtake
        async with self.slots:
            now.set()
            self.check()
            await self.answer_all(groups, outcomes)
        return await asyncio.to_thread(outcomes.of_slice, piece)

    def groups(self, piece: Slice, outcomes: _Outcomes, default_model: str | None) -> list[list[ParsedRequest]]:
        """Parses the slice. Returns the requests that may be answered together, in the order of their first lines."""
        road = self.road()
        found: dict[object, list[list[ParsedRequest]]] = {}
        sizes: dict[object, int] = {}
        for request in piece.requests(self.job.endpoint):
            if request.reason is not None:
                outcomes.errors[request.line] = batch_lines.unanswered(
                    self.job.id, request, code="invalid_row", message=f"This row has no text to embed: {request.reason}."
                )
                continue
            try:
                asked = road.parse(self.job.endpoint, request.body, default_model=default_model)
            except ClientError as error:
                self.fail(request, error, outcomes)
                continue
            group, size = road.group_of(asked), road.num_inputs(asked)
            key: object = request.line if group is None else group
            if key not in found or sizes[key] + size > MAX_INPUTS:
                found.setdefault(key, []).append([])
                sizes[key] = 0
            found[key][-1].append(ParsedRequest(request, asked))
            sizes[key] += size
        return [group for groups in found.values() for group in groups]

    async def answer_all(self, groups: list[list[ParsedRequest]], outcomes: _Outcomes) -> None:
        """Answers the groups in order. Requests that are answered alone share the device's batches, ALONE_AT_ONCE at a time."""
        alone: set[asyncio.Task[None]] = set()
        try:
            for group in groups:
                if self.road().group_of(group[0].asked) is not None:
                    await self.answer(group, outcomes)
                    continue
                if len(alone) >= ALONE_AT_ONCE:
                    done, alone = await asyncio.wait(alone, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                alone.add(launch(self.answer(group, outcomes), name="batch-request"))
            for task in list(alone):
                await task
        finally:
            for task in alone:
                task.cancel()
            await asyncio.gather(*alone, return_exceptions=True)

    async def answer(self, group: list[ParsedRequest], outcomes: _Outcomes) -> None:
        """Answers a group. If it fails it is halved until one request fails: 2 log2(n) + 1 more attempts for a bad one of n."""
        error = await self.attempt(group, outcomes)
        if error is None:
            return
        if len(group) == 1:
            self.fail(group[0].request, error, outcomes)
            return
        middle = len(group) // 2
        await self.answer(group[:middle], outcomes)
        await self.answer(group[middle:], outcomes)

    async def attempt(self, group: list[ParsedRequest], outcomes: _Outcomes) -> Exception | None:
        """Answers a group, waiting for what passes. Returns the error of one of the requests, or None once all are answered."""
        num_failures = 0
        while True:
            try:
                answers = await self.ask([each.asked for each in group], group[0].request.line)
            except ERRORS as error:
                if not _is_transient(error) and (len(group) > 1 or names_input(error) or await self.works(group)):
                    return error
                num_failures += 1
                await self.wait(error if isinstance(error, GatewayError) else None, num_failures)
            else:
                await asyncio.to_thread(self.add, group, answers, outcomes)
                return None

    async def ask(self, asked: list[Asked], line: int) -> Answers:
        request_id = batch_lines.request_id(self.job.id, line)
        return await self.road().answer(asked, self.caller(), fingerprints=self.job.fingerprints or {}, request_id=request_id)

    async def works(self, group: list[ParsedRequest]) -> bool:
        """Whether the model embeds a text that any model can embed, with the options of a request that failed."""
        road = self.road()
        try:
            await self.ask([road.control_of(group[0].asked)], group[0].request.line)
        except ClientError:
            return True  # the options are wrong: that is the request's own fault
        except ERRORS:
            return False
        return True

    def add(self, group: list[ParsedRequest], answers: Answers, outcomes: _Outcomes) -> None:
        outcomes.uses.append(answers.use)
        for each, body in zip(group, answers.bodies, strict=True):
            outcomes.outputs[each.request.line] = batch_lines.success(self.job.id, each.request, body)

    def fail(self, request: BatchRequest, error: Exception, outcomes: _Outcomes) -> None:
        if not isinstance(error, GatewayError):  # a network's own: its message may quote the text
            own_id = batch_lines.request_id(self.job.id, request.line)
            log.error("batch_request_failed", batch=self.job.id, line=request.line, reason=type(error).__name__)
            error = InternalError(own_id)
        body = self.road().error_body(error)
        outcomes.errors[request.line] = batch_lines.failure(self.job.id, request, error, body)


def _is_transient(error: Exception) -> bool:
    """Whether the same requests may be answered later: also what a client would be told to give up on, as a spent budget."""
    return isinstance(error, RateLimited | InsufficientQuota) or may_pass(error)
