"""Which jobs run next, together. No timer: a device thread that is free takes the best batch there is at that moment.

The `scheduler` says whose turn it is, so that one key's flood leaves the others their share. A batch is filled with inputs near
the first one's length, its own caller's before all others', as far as the budget of tokens and the ladder of shapes allow. What is
taken is charged: what is cancelled before costs its caller nothing.
"""

import threading
import time
from bisect import bisect_right
from itertools import chain, islice
from operator import attrgetter

from gateway.engine.budget import Budget
from gateway.engine.scheduler import CallerFlow, Scheduler
from gateway.engine.shape_buckets import FREE, Shapes
from gateway.engine.work import Job, Work
from gateway.errors import GatewayError, Overloaded
from gateway.metrics import ModelMetrics

MIN_LENGTH_RATIO = 0.75  # a job shorter than this share of the batch's longest would be mostly padding
MIN_FILL_RATIO = 0.85  # real over padded tokens of a whole batch
MIN_REQUESTS_SEEN = 64  # for one batch: of a thousand that wait with one text each, this many hold enough of any length
MAX_DEBT_BATCHES = 2  # that a caller may be ahead of the others, by what fills their batches
RATE_WEIGHT = 0.2  # of the newest batch in the measured tokens a second
FIRST_RATE = 2000.0  # tokens a second, assumed until the first batch has run


class Candidate:
    """Of one request's jobs, which are sorted by length, neighbours [bottom, top) that go into a batch; none to begin with."""

    def __init__(self, work: Work, longest: int) -> None:
        self.work = work
        self.top = self.bottom = bisect_right(work.pending, longest, key=num_tokens_of)

    @property
    def next_tokens(self) -> int:
        """How long the next one is; 0 where there is none."""
        return self.work.pending[self.bottom - 1].num_tokens if self.bottom else 0


def is_near(num_tokens: int, longest: int, real_tokens: int, num_jobs: int) -> bool:
    """Whether a shorter job keeps the padding of a batch small that holds `real_tokens` without it, and `num_jobs` with it."""
    return num_tokens >= MIN_LENGTH_RATIO * longest and real_tokens + num_tokens >= MIN_FILL_RATIO * longest * num_jobs


class Batcher:
    """Thread-safe: requests submit from the event loop, device threads take batches."""

    def __init__(
        self, *, budget: Budget, max_queue_tokens: int, metrics: ModelMetrics, shapes: Shapes = FREE, num_devices: int = 1
    ) -> None:
        self.shapes = shapes
        self.num_devices = num_devices
        self.budget = budget
        self.max_queue_tokens = max_queue_tokens
        self.metrics = metrics
        self.changed = threading.Condition()
        self.scheduler = Scheduler()
        self.callers: dict[tuple[str, str], CallerFlow] = {}  # by fairness key and class
        self.works: dict[Work, CallerFlow] = {}  # in order of arrival
        self.num_tokens = 0
        self.num_inputs = 0
        self.num_resting = 0  # device threads that wait for work
        self.tokens_per_second = FIRST_RATE
        self.closed_by: GatewayError | None = None

    @property
    def backlog_seconds(self) -> float:
        return self.num_tokens / (self.tokens_per_second * self.num_devices)

    def submit(self, work: Work) -> None:
        """Raises Overloaded when the queue is full, or what `close` was given. An empty queue takes any request."""
        with self.changed:
            if self.closed_by is not None:
                raise self.closed_by.with_traceback(None)  # of each raise it would keep the frames, and their texts
            if self.num_tokens and self.num_tokens + work.num_tokens > self.max_queue_tokens:
                raise Overloaded(retry_after_seconds=self.backlog_seconds)
            caller = self.caller_of(work)
            caller.works[work] = None
            self.works[work] = caller
            self.num_tokens += work.num_tokens
            self.num_inputs += len(work.pending)
            self.update_metrics()
            self.changed.notify_all()

    def caller_of(self, work: Work) -> CallerFlow:
        caller = self.callers.get((work.caller, work.service_class))
        if caller is None:
            caller = self.scheduler.arrive(work.caller, work.weight, work.service_class)
            self.callers[work.caller, work.service_class] = caller
        elif caller.weight != work.weight:
            self.scheduler.reweigh(caller, work.weight)
        return caller

    def forget(self, work: Work) -> None:
        """Takes back what has not begun; its client left, or its request failed."""
        with self.changed:
            if work in self.works:
                self.num_tokens -= work.num_tokens
                self.num_inputs -= len(work.pending)
                work.pending.clear()
                self.remove(work)
                self.update_metrics()

    def next_batch(self) -> list[Job]:
        """Waits for work. An empty list means that the batcher was closed."""
        with self.changed:
            while not self.works:
                if self.closed_by is not None:
                    return []
                self.rest()
            batch = self.form_batch()
            now = time.perf_counter()
            for job in batch:
                job.work.started_at = job.work.started_at or now
            self.update_metrics()
            return batch

    def rest(self) -> None:
        """Waits for work. Once no device has any, nobody is ahead of anybody."""
        self.num_resting += 1
        if self.num_resting >= self.num_devices:
            self.scheduler.rest()
        try:
            self.changed.wait()
        finally:
            self.num_resting -= 1

    def record_speed(self, num_tokens: int, seconds: float) -> None:
        """A batch of so many tokens took so long: the figure behind every Retry-After."""
        rate = num_tokens / max(seconds, 1e-6)
        is_first = self.tokens_per_second == FIRST_RATE
        self.tokens_per_second = rate if is_first else self.tokens_per_second + RATE_WEIGHT * (rate - self.tokens_per_second)

    def close(self, error: GatewayError) -> None:
        """Fails what waits, and whatever is submitted from now on, with `error`; wakes the device threads."""
        with self.changed:
            self.closed_by = error
            for work in list(self.works):
                work.end(error)
                self.forget(work)
            self.changed.notify_all()

    def form_batch(self) -> list[Job]:
        leader, *callers = self.scheduler.next_turn()
        own_works = leader.candidates(is_leader=True)
        longest = self.shapes.length(own_works[0].pending[-1].num_tokens)
        max_jobs = self.shapes.rows(max(1, self.budget.max_tokens // longest))
        works = chain(own_works, chain.from_iterable(caller.candidates(is_leader=False) for caller in callers))
        runs = [Candidate(work, longest) for work in islice(works, max(max_jobs, MIN_REQUESTS_SEEN))]
        num_jobs = real_tokens = 0
        own, others = runs[: len(own_works)], runs[len(own_works) :]
        # What needs no more padding first, then what is near in length; but of the caller whose turn it is before any other's: who
        # sends much has something of every length, and would take the seats of who sends little.
        for group, is_same in ((own, True), (own, False), (others, True), (others, False)):
            for run in group:
                while num_jobs < max_jobs and (num_tokens := run.next_tokens):
                    is_longest = self.shapes.length(num_tokens) == longest
                    if not is_longest and (is_same or not is_near(num_tokens, longest, real_tokens, num_jobs + 1)):
                        break
                    run.bottom, num_jobs, real_tokens = run.bottom - 1, num_jobs + 1, real_tokens + num_tokens
        surplus = num_jobs - self.shapes.rows(num_jobs)
        batch = [job for run in runs for job in reversed(run.work.pending[run.bottom : run.top])]
        batch = batch[: len(batch) - surplus]
        max_debt = max(MAX_DEBT_BATCHES * self.budget.max_tokens, longest)
        for job in batch:
            self.take(job, max_debt)
        return batch

    def take(self, job: Job, max_debt: int) -> None:
        work = job.work
        del work.pending[bisect_right(work.pending, job.num_tokens, key=num_tokens_of) - 1]
        work.num_tokens -= job.num_tokens
        work.served_tokens += job.num_tokens
        self.scheduler.charge(self.works[work], job.num_tokens, max_debt)
        self.num_tokens -= job.num_tokens
        self.num_inputs -= 1
        if not work.pending:
            self.remove(work)

    def remove(self, work: Work) -> None:
        caller = self.works.pop(work)
        del caller.works[work]
        if not caller.works:
            del self.callers[work.caller, work.service_class]
            self.scheduler.leave(caller)

    def update_metrics(self) -> None:
        self.metrics.set_queue(num_inputs=self.num_inputs, num_tokens=self.num_tokens, backlog_seconds=self.backlog_seconds)


num_tokens_of = attrgetter("num_tokens")
