"""Which caller leads the next batch, and in which order the others fill it.

Start-time fair queueing on two levels (`fair_queue`): between the classes of service, and between the callers of a class. Work in
the background has a tenth of what is served while interactive work waits, and all of it otherwise; so it never stands still.

The bound. Of n callers that wait, all of one weight, each leads one of the next 4n batches, whatever it or the others were served
before, however small the batches are and whoever comes meanwhile. By its start alone a caller that is not in debt leads once each
of the others has led (the delay bound of Goyal, Vin, Cheng 1996), after n batches at most. Whoever has not led for `PATIENCE` * n
batches is overdue, in debt or not, and leads before all that become overdue later: after n more at most. In general, of n callers
whose weights add up to W, one of weight w waits for at most `PATIENCE` * W / w + n batches; in the background, W being that of its
class, for ten times the first part. Turns of the overdue are a third of a caller's share or less, so they leave the shares of busy
callers as they are.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import get_args

from gateway.embedding.embedder import ServiceClass
from gateway.engine.fair_queue import FairQueue, Flow
from gateway.engine.work import Work

PATIENCE = 3  # times its share of batches that a caller waits at most, until it is overdue
SHARES: dict[ServiceClass, float] = {"interactive": 0.9, "background": 0.1}  # of tokens, while both classes wait
OLDEST_EVERY = 4  # turns of a caller


@dataclass(slots=True, eq=False)
class CallerFlow(Flow):
    """Of one fairness key, what it has waiting in one class."""

    service_class: ServiceClass = "interactive"
    works: dict[Work, None] = field(default_factory=dict)  # in order of arrival
    overdue_at: float = math.inf  # the number of the batch
    num_turns: int = 0

    def candidates(self, *, is_leader: bool) -> list[Work]:
        """The request that was served least first, so a short query passes its own caller's bulk.

        Every fourth of the caller's turns begins with the oldest instead, so bulk never starves.
        """
        works = sorted(self.works, key=lambda work: work.served_tokens)  # stable: then by arrival
        if is_leader and self.num_turns % OLDEST_EVERY == 0:
            oldest = next(iter(self.works))
            works.remove(oldest)
            works.insert(0, oldest)
        return works


class Scheduler:
    """Not thread-safe: the batcher locks it."""

    def __init__(self) -> None:
        self.num_batches = 0
        self.classes: FairQueue[Flow] = FairQueue()
        self.class_flows = {name: Flow(name, share) for name, share in SHARES.items()}
        self.queues: dict[ServiceClass, FairQueue[CallerFlow]] = {name: FairQueue() for name in get_args(ServiceClass)}

    def arrive(self, key: Hashable, weight: float, service_class: ServiceClass) -> CallerFlow:
        """A caller that begins to wait."""
        caller = CallerFlow(key, weight, service_class=service_class)
        queue = self.queues[service_class]
        if not queue.waiting:
            self.classes.add(self.class_flows[service_class])
        queue.add(caller)
        self.be_patient(caller)
        return caller

    def leave(self, caller: CallerFlow) -> None:
        """Nothing of it waits any more."""
        queue = self.queues[caller.service_class]
        queue.remove(caller)
        if not queue.waiting:
            self.classes.remove(self.class_flows[caller.service_class])

    def reweigh(self, caller: CallerFlow, weight: float) -> None:
        self.queues[caller.service_class].reweigh(caller, weight)

    def next_turn(self) -> list[CallerFlow]:
        """All that wait: first who leads the next batch, then in which order the others fill it."""
        self.num_batches += 1
        orders = {self.class_flows[name]: queue.order() for name, queue in self.queues.items()}
        turn = orders[self.classes.order()[0]][0]
        callers = [caller for order in orders.values() for caller in order]
        longest_overdue = min(callers, key=lambda caller: caller.overdue_at)
        leader = longest_overdue if longest_overdue.overdue_at <= self.num_batches else turn
        leader.num_turns += 1
        self.be_patient(leader)
        return [leader, *(caller for caller in callers if caller is not leader)]

    def be_patient(self, caller: CallerFlow) -> None:
        share = 1.0 if caller.service_class == "interactive" else SHARES[caller.service_class]
        patience = PATIENCE * self.queues[caller.service_class].total_weight / (caller.weight * share)
        caller.overdue_at = self.num_batches + patience

    def charge(self, caller: CallerFlow, num_tokens: int, max_debt: int) -> None:
        self.queues[caller.service_class].charge(caller, num_tokens, max_debt)
        self.classes.charge(self.class_flows[caller.service_class], num_tokens, max_debt)

    def rest(self) -> None:
        """Nothing waits, and nothing runs."""
        self.classes.rest()
        for queue in self.queues.values():
            queue.rest()
