"""Discrete-event simulation of a cluster: shows effects that the formulas of `plan` leave out. The same seed gives the same run.

Texts arrive as a Poisson process whose rate changes between base and peak. Each goes to the less busy of two random replicas. A
free stream takes the waiting texts there in order, up to a batch's tokens. The texts of a lost node, begun or not, are sent once
more, to other replicas. The autoscaler looks at the backlog in seconds; new replicas serve after a delay.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import numpy as np

from gateway.capacity.plan import ReplicaProfile, Workload

PEAK_SECONDS = 5.0  # a peak's mean length: long compared with a text, short compared with a run


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A node loss: at `at_seconds`, `replicas` replicas disappear and do not come back by themselves."""

    at_seconds: float
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """The autoscaler. Every `look_seconds` it requests as many replicas as bring the backlog down to `target_seconds`.

    They serve `delay_seconds` later.
    """

    max_replicas: int
    target_seconds: float = 0.5
    look_seconds: float = 1.0
    delay_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What happens in a run. If `peak_begins_at` is given, there is one peak, from then to the end."""

    seed: int = 1
    loss: Loss | None = None
    scaling: Scaling | None = None
    peak_begins_at: float | None = None


@dataclass(slots=True)
class Text:
    came: float
    tokens: float


@dataclass(slots=True, eq=False)
class _SimulatedServer:
    """A replica. `free` is its number of free streams; `tokens` counts those waiting or running."""

    free: int
    waiting: deque[Text] = field(default_factory=deque)
    running: dict[int, list[Text]] = field(default_factory=dict)
    tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The texts of a run, in the order in which they finished: text i came at `came[i]` and took `seconds[i]`.

    `num_texts` is how many came, `num_replicas` how many replicas there were at the end.
    """

    seconds: np.ndarray
    came: np.ndarray
    num_texts: int
    num_replicas: int

    def percentile(self, percent: float, *, after: float = 0.0, before: float = math.inf) -> float:
        """A percentile of latency in seconds, over the texts that came from `after` until before `before`."""
        return float(np.percentile(self.seconds[(self.came >= after) & (self.came < before)], percent))


class Simulation:
    """One run. It begins with `num_replicas` replicas."""

    def __init__(self, load: Workload, replica: ReplicaProfile, num_replicas: int, course: Course) -> None:
        self.load = load
        self.replica = replica
        self.course = course
        self.chance = random.Random(course.seed)  # noqa: S311 - no secret depends on it
        self.servers = [_SimulatedServer(replica.streams) for _ in range(num_replicas)]
        self.num_ordered = 0
        self.now = 0.0
        self.ends = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = count()
        self.is_peak = False
        self.num_turns = 0
        self.done: list[tuple[float, float]] = []
        self.num_texts = 0
        self.spread = math.sqrt(math.log1p(load.tokens_cv**2))  # standard deviation of the logarithm of a text's tokens
        self.middle = math.log(load.tokens) - self.spread**2 / 2

    def run(self, seconds: float) -> Outcome:
        """Lets texts come for so many seconds, and runs until all are served."""
        self.ends = seconds
        self.expect_text()
        if self.course.peak_begins_at is not None:
            self.at(self.course.peak_begins_at, self.turn)
        elif self.load.peak_factor != 1:
            self.at(self.level_seconds(), self.turn)
        if self.course.loss is not None:
            self.at(self.course.loss.at_seconds, partial(self.lose, self.course.loss.replicas))
        if self.course.scaling is not None:
            self.at(0.0, partial(self.look, self.course.scaling))
        while self.events:
            self.now, _, happen = heapq.heappop(self.events)
            happen()
        came, took = zip(*self.done, strict=True) if self.done else ((), ())
        return Outcome(np.array(took), np.array(came), self.num_texts, len(self.servers))

    def at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), happen))

    def level_seconds(self) -> float:
        """A random time until the load changes between base and peak."""
        share = self.load.peak_share
        return self.chance.expovariate(1 / (PEAK_SECONDS if self.is_peak else PEAK_SECONDS * (1 - share) / share))

    def turn(self) -> None:
        """Switches from base to peak, or back. The next text comes at the new rate."""
        if self.now >= self.ends:
            return
        self.is_peak = not self.is_peak
        self.num_turns += 1
        self.expect_text()
        if self.course.peak_begins_at is None:
            self.at(self.now + self.level_seconds(), self.turn)

    def expect_text(self) -> None:
        rate = self.load.peak if self.is_peak else self.load.base
        if rate:
            self.at(self.now + self.chance.expovariate(rate), partial(self.text_came, self.num_turns))

    def text_came(self, turn: int) -> None:
        if turn == self.num_turns and self.now < self.ends:  # else its arrival was drawn at a rate that has changed
            self.num_texts += 1
            self.send(Text(self.now, max(1.0, self.chance.lognormvariate(self.middle, self.spread))))
            self.expect_text()

    def send(self, text: Text) -> None:
        server = min(self.chance.choice(self.servers), self.chance.choice(self.servers), key=lambda each: each.tokens)
        server.waiting.append(text)
        server.tokens += text.tokens
        self.serve(server)

    def serve(self, server: _SimulatedServer) -> None:
        while server.free and server.waiting:
            batch: list[Text] = []
            tokens = 0.0
            while server.waiting and (not batch or tokens + server.waiting[0].tokens <= self.replica.batch_tokens):
                batch.append(server.waiting.popleft())
                tokens += batch[-1].tokens
            server.free -= 1
            number = next(self.numbers)
            server.running[number] = batch
            seconds = self.replica.batch_overhead_seconds + tokens * self.replica.seconds_per_token
            self.at(self.now + seconds, partial(self.finish, server, number))

    def finish(self, server: _SimulatedServer, number: int) -> None:
        for text in server.running.pop(number, []):  # none if the server was lost meanwhile
            server.tokens -= text.tokens
            self.done.append((text.came, self.now - text.came + self.replica.call_seconds))
        server.free += 1
        self.serve(server)

    def lose(self, num_replicas: int) -> None:
        """Removes a node's replicas, all at once. Their texts, begun or not, are sent again."""
        gone, self.servers = self.servers[:num_replicas], self.servers[num_replicas:]
        for server in gone:
            texts = [*server.waiting, *(text for batch in server.running.values() for text in batch)]
            server.waiting.clear()
            server.running.clear()
            for text in texts:
                self.send(text)

    def look(self, scaling: Scaling) -> None:
        """Requests the replicas that are missing. None is removed, as a run is too short for that."""
        backlog_seconds = sum(server.tokens for server in self.servers) / self.replica.tokens_per_second  # of one replica
        wanted = min(scaling.max_replicas, math.ceil(backlog_seconds / scaling.target_seconds))
        for _ in range(wanted - len(self.servers) - self.num_ordered):
            self.num_ordered += 1
            self.at(self.now + scaling.delay_seconds, self.replica_came)
        if self.now < self.ends:
            self.at(self.now + scaling.look_seconds, partial(self.look, scaling))

    def replica_came(self) -> None:
        self.num_ordered -= 1
        self.servers.append(_SimulatedServer(self.replica.streams))
