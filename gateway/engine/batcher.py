"""Dynamic batching without a timer: a free device thread takes the best batch that can be formed at that moment.

The `scheduler` chooses the caller that leads the batch, so that one busy key leaves the others their share. The batch is filled
with jobs of about the first one's length, the leader's own before other callers', as far as the token budget and the ladder of
shapes allow. A caller is charged when a job is taken: a job cancelled before that costs nothing.

A window of 8,192 tokens keeps a device for as long as dozens of batches. So one device of several is always left to short windows,
which then wait for each other alone.
"""

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import chain, islice
from queue import SimpleQueue

from gateway.embedding.embedder import ServiceClass
from gateway.engine.budget import Budget
from gateway.engine.scheduler import CallerFlow, Scheduler
from gateway.engine.shape_buckets import FREE, Shapes
from gateway.engine.work import Job, Work, num_tokens_of
from gateway.errors import GatewayError, Overloaded
from gateway.metrics import ModelMetrics

MIN_LENGTH_RATIO = 0.75  # a job shorter than this share of the batch's longest would be mostly padding
MIN_FILL_RATIO = 0.85  # real over padded tokens of a whole batch
MIN_REQUESTS_SEEN = 64  # for one batch: if a thousand requests of one text each wait, this many have enough texts of any length
MAX_DEBT_BATCHES = 2  # of tokens that a caller may be ahead of the others, because its jobs filled their batches
LONG_BATCHES = 2  # a window of more tokens than so many batches is long
RATE_WEIGHT = 0.2  # of the newest batch in the moving average of tokens a second
AHEAD_SHARE = 4  # a batch is formed ahead once a fourth of what one may have waits: a smaller one had better wait for company
BACKGROUND_PART = 4  # of an interactive batch a fourth is filled by background work
FIRST_RATE = 2000.0  # tokens a second, assumed until the first batch has run


class _Candidate:
    """The jobs of one request that go into a batch: a slice [bottom, top) of its jobs sorted by length, empty at first."""

    __slots__ = ("bottom", "top", "work")

    def __init__(self, work: Work, longest: int) -> None:
        self.work = work
        pending = work.pending
        fits_whole = pending[-1].num_tokens <= longest
        self.top = self.bottom = len(pending) if fits_whole else bisect_right(pending, longest, key=num_tokens_of)

    def take(self, now: float) -> list[Job]:
        """Removes the jobs from their request. The longest comes first."""
        work = self.work
        jobs = work.pending[self.bottom : self.top]
        del work.pending[self.bottom : self.top]
        jobs.reverse()
        num_tokens = sum([job.num_tokens for job in jobs])
        work.started_at = work.started_at or now
        work.num_tokens -= num_tokens
        work.served_tokens += num_tokens
        return jobs


class _Batch:
    """A batch that is being filled, of at most `max_jobs` jobs padded to `longest` tokens."""

    __slots__ = ("longest", "max_jobs", "num_jobs", "num_tokens", "shortest")

    def __init__(self, *, longest: int, shortest: int, max_jobs: int) -> None:
        self.longest = longest
        self.shortest = shortest  # the fewest tokens that are padded to as many
        self.max_jobs = max_jobs
        self.num_jobs = self.num_tokens = 0

    def fill(self, works: Iterable[Work]) -> list[_Candidate]:
        """Adds jobs of these requests: first those that need no more padding, then those of nearly that length.

        Returns the candidates that were looked at. As soon as the batch is full it looks at no more.
        """
        runs: list[_Candidate] = []
        for work in works:
            runs.append(run := _Candidate(work, self.longest))
            if run.bottom:
                self.add_same(run)
                if self.num_jobs >= self.max_jobs:
                    return runs
        for run in runs:
            if run.bottom:
                self.add_near(run)
                if self.num_jobs >= self.max_jobs:
                    return runs
        return runs

    def add_same(self, run: _Candidate) -> None:
        """Adds a candidate's longest jobs, those that need no more padding."""
        pending = run.work.pending
        if pending[run.bottom - 1].num_tokens < self.shortest:
            return
        first = bisect_left(pending, self.shortest, hi=run.bottom, key=num_tokens_of) if run.bottom > 1 else 0
        first = max(first, run.bottom - (self.max_jobs - self.num_jobs))
        self.num_jobs += run.bottom - first
        self.num_tokens += sum([job.num_tokens for job in pending[first : run.bottom]])
        run.bottom = first

    def add_near(self, run: _Candidate) -> None:
        """Adds a candidate's jobs of nearly that length, the longest first, as long as the padding stays small."""
        pending = run.work.pending
        while run.bottom and self.num_jobs < self.max_jobs:
            num_tokens = pending[run.bottom - 1].num_tokens
            if num_tokens < self.shortest and not self.is_near(num_tokens):
                break
            run.bottom -= 1
            self.num_jobs += 1
            self.num_tokens += num_tokens

    def is_near(self, num_tokens: int) -> bool:
        least = MIN_FILL_RATIO * self.longest * (self.num_jobs + 1)
        return num_tokens >= MIN_LENGTH_RATIO * self.longest and self.num_tokens + num_tokens >= least


def _parts(leader: CallerFlow, callers: list[CallerFlow], max_jobs: int) -> list[tuple[list[CallerFlow], int]]:
    """Who fills the leader's batch, in turn, and up to how many jobs.

    An interactive reply would wait for all background work of its batch, so that gets a part of it. Otherwise anybody fills it.
    """
    background = [each for each in callers if each.service_class == "background"] if leader.service_class == "interactive" else []
    if not background:
        return [(callers, max_jobs)]
    interactive = [each for each in callers if each.service_class == "interactive"]
    return [(interactive, max_jobs), (background, max(1, max_jobs // BACKGROUND_PART))]


def _leave_out(runs: list[_Candidate], num_jobs: int) -> None:
    """Takes jobs out of candidates: the last ones that came in, from each its shortest."""
    for run in reversed(runs):
        if num_jobs <= 0:
            return
        left_out = min(num_jobs, run.top - run.bottom)
        run.bottom += left_out
        num_jobs -= left_out


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
        self.lock = threading.Lock()
        self.wakeups: SimpleQueue[None] = SimpleQueue()  # one entry wakes one device thread
        self.is_wake_due = False  # at the end of this turn of the event loop
        self.scheduler = Scheduler()
        self.callers: dict[tuple[str, str], CallerFlow] = {}  # by fairness key and class
        self.works: dict[Work, CallerFlow] = {}  # in order of arrival
        self.num_tokens = self.num_background_tokens = 0  # the latter are a part of the former
        self.num_inputs = 0
        self.num_resting = 0  # device threads that wait for work and were not woken
        self.tokens_per_second = FIRST_RATE
        self.closed_by: GatewayError | None = None
        self.max_short_tokens = LONG_BATCHES * budget.first_tokens
        self.long_threads: set[int] = set()  # the device threads that run a long window
        metrics.watch_queue(self)

    @property
    def backlog_seconds(self) -> float:
        return self.seconds_for(self.num_tokens)

    def seconds_for(self, num_tokens: int) -> float:
        return num_tokens / (self.tokens_per_second * self.num_devices)

    def count(self, service_class: ServiceClass, num_tokens: int) -> None:
        """Adds to the tokens that wait."""
        self.num_tokens += num_tokens
        if service_class == "background":
            self.num_background_tokens += num_tokens

    def submit(self, work: Work) -> None:
        """Queues a request's jobs. An empty queue takes a request of any size. Background work takes no room of interactive work.

        A resting device thread is woken at the end of this turn of the event loop: what arrived together runs together, and waking
        a thread takes as long as preparing a request.
        Raises Overloaded if the queue is full, and after `close` the error that `close` was given.
        """
        with self.lock:
            if self.closed_by is not None:
                raise self.closed_by.with_traceback(None)  # else one error would keep the frames of every raise, and their texts
            is_background = work.service_class == "background"
            waiting = self.num_tokens if is_background else self.num_tokens - self.num_background_tokens
            if waiting and waiting + work.num_tokens > self.max_queue_tokens:
                raise Overloaded(retry_after_seconds=self.seconds_for(waiting))
            caller = self.caller_of(work)
            caller.works[work] = None
            self.works[work] = caller
            self.count(work.service_class, work.num_tokens)
            self.num_inputs += len(work.pending)
            must_wake = self.num_resting > 0 and not self.is_wake_due
            self.is_wake_due = self.is_wake_due or must_wake
        if must_wake:
            work.loop.call_soon(self.wake)

    def wake(self) -> None:
        """Wakes one device thread if there is work. If that leaves work behind, it wakes the next one."""
        with self.lock:
            self.is_wake_due = False
            self.wake_one()

    def wake_one(self) -> None:
        if self.works and self.num_resting:
            self.num_resting -= 1
            self.wakeups.put(None)

    def caller_of(self, work: Work) -> CallerFlow:
        caller = self.callers.get((work.caller, work.service_class))
        if caller is None:
            caller = self.scheduler.arrive(work.caller, work.weight, work.service_class)
            self.callers[work.caller, work.service_class] = caller
        elif caller.weight != work.weight:
            self.scheduler.reweigh(caller, work.weight)
        return caller

    def forget(self, work: Work) -> None:
        """Cancels a request's jobs that have not begun, because its client left or the request failed."""
        if work.pending:  # which only shrinks: of finished work nothing is queued, and no lock is needed to see that
            with self.lock:
                self.withdraw(work)

    def withdraw(self, work: Work) -> None:
        if work in self.works:
            self.count(work.service_class, -work.num_tokens)
            self.num_inputs -= len(work.pending)
            work.pending.clear()
            self.remove(work)

    def next_batch(self) -> list[Job]:
        """Blocks until there is work that this device may take. Returns an empty list once the batcher is closed."""
        self.end_batch()
        while True:
            with self.lock:
                if self.works and (batch := self.counted_if_long(self.form_batch())):
                    self.wake_one()
                    return batch
                if self.closed_by is not None:
                    return []
                self.rest()
            self.wakeups.get()

    def end_batch(self) -> None:
        """This thread's batch is over: another device may take long windows in its place."""
        with self.lock:
            self.long_threads.discard(threading.get_ident())

    def next_batch_ahead(self) -> list[Job]:
        """The next batch for a thread whose device is still at work; returns at once.

        Returns an empty list while little waits, as what arrives meanwhile could not join a batch formed now; while another device
        is idle; and while this thread runs a long window, which ends with `next_batch` alone.
        """
        with self.lock:
            is_worth_it = self.num_tokens * AHEAD_SHARE >= self.budget.max_tokens
            if not self.works or not is_worth_it or self.num_resting or threading.get_ident() in self.long_threads:
                return []
            return self.counted_if_long(self.form_batch())

    def counted_if_long(self, batch: list[Job]) -> list[Job]:
        if batch and batch[0].num_tokens > self.max_short_tokens:
            self.long_threads.add(threading.get_ident())
        return batch

    def rest(self) -> None:
        """A device thread begins to wait for work. Once all devices are idle, the scheduler forgets every caller's debt."""
        self.num_resting += 1
        if self.num_resting >= self.num_devices:
            self.scheduler.rest()

    def record_speed(self, num_tokens: int, seconds: float) -> None:
        """Updates the moving average of tokens a second from one batch. Every Retry-After is computed from it."""
        rate = num_tokens / max(seconds, 1e-6)
        is_first = self.tokens_per_second == FIRST_RATE
        self.tokens_per_second = rate if is_first else self.tokens_per_second + RATE_WEIGHT * (rate - self.tokens_per_second)

    def close(self, error: GatewayError) -> None:
        """Fails all waiting requests, and those submitted from now on, with `error`; wakes the device threads."""
        with self.lock:
            self.closed_by = error
            for work in list(self.works):
                work.end(error)
                self.withdraw(work)
            for _ in range(self.num_resting):
                self.wakeups.put(None)
            self.num_resting = 0

    def form_batch(self) -> list[Job]:
        """Returns an empty list if all that waits is long, and this device must be left to short windows."""
        is_reserve = 0 < self.num_devices - 1 <= len(self.long_threads)
        order = self.scheduler.next_turn(self.has_short if is_reserve else None)
        if not order:
            return []
        leader, *callers = order
        own_works = leader.candidates(is_leader=True)
        if is_reserve:
            own_works = list(filter(self.is_short, own_works))
        pending = own_works[0].pending
        last = bisect_right(pending, self.max_short_tokens, key=num_tokens_of) if is_reserve else len(pending)
        longest = self.shapes.length(pending[last - 1].num_tokens)
        max_jobs = self.shapes.rows(max(1, self.budget.max_tokens // longest))
        max_seen = max(max_jobs, MIN_REQUESTS_SEEN)
        batch = _Batch(longest=longest, shortest=self.shapes.shortest(longest), max_jobs=max_jobs)
        # All the leader's own before any other caller's: a caller that sends much has jobs of every length, and would otherwise
        # crowd out a leader that sends little.
        runs = batch.fill(own_works[:max_seen])
        for part, room in _parts(leader, callers, max_jobs):
            if part and batch.num_jobs < room:
                batch.max_jobs = room
                others = chain.from_iterable(caller.candidates(is_leader=False) for caller in part)
                runs += batch.fill(islice(others, max_seen - len(runs)))
        _leave_out(runs, batch.num_jobs - self.shapes.rows(batch.num_jobs))
        return self.take([run for run in runs if run.bottom < run.top], max(MAX_DEBT_BATCHES * self.budget.max_tokens, longest))

    def is_short(self, work: Work) -> bool:
        """Whether one of its windows is no long one."""
        return work.pending[0].num_tokens <= self.max_short_tokens

    def has_short(self, caller: CallerFlow) -> bool:
        return any(map(self.is_short, caller.works))

    def take(self, runs: list[_Candidate], max_debt: int) -> list[Job]:
        """Removes the jobs of the candidates from the queue, and charges their callers."""
        now = time.perf_counter()
        jobs: list[Job] = []
        charges: dict[CallerFlow, int] = {}
        for run in runs:
            num_tokens = run.work.num_tokens
            jobs += run.take(now)
            caller = self.works[run.work]
            charges[caller] = charges.get(caller, 0) + num_tokens - run.work.num_tokens
        for caller, num_tokens in charges.items():
            self.scheduler.charge(caller, num_tokens, max_debt)
            self.count(caller.service_class, -num_tokens)
        self.num_inputs -= len(jobs)
        for run in runs:
            if not run.work.pending:
                self.remove(run.work)
        return jobs

    def remove(self, work: Work) -> None:
        caller = self.works.pop(work)
        del caller.works[work]
        if not caller.works:
            del self.callers[work.caller, work.service_class]
            self.scheduler.leave(caller)
