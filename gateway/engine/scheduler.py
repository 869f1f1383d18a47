"""Hierarchical start-time fair queueing (`fair_queue`): which caller leads the next batch, and in which order the others fill it.

There are two levels: service classes, and the callers of a class. Background work gets a tenth of the tokens while interactive work
waits, and all of them otherwise, so it never starves.

The bound. If n callers of equal weight wait, each leads one of the next 4n batches. Earlier service, small batches and new callers
do not change that. Two rules give it:
* A caller that is not in debt leads by its start alone, once each of the others has led: after n batches at most (the delay bound
  of Goyal, Vin, Cheng 1996).
* A caller that has not led for `PATIENCE` * n batches is overdue, in debt or not. It leads before all that become overdue later:
  after n more batches at most.

In general, among n callers whose weights add up to W, a caller of weight w waits for at most `PATIENCE` * W / w + n batches. For
background work, W is that of its class, and the first term is ten times as large. Overdue turns are at most a third of a caller's
share, so they leave the shares of busy callers as they are.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import get_args

from gateway.embedding.embedder import ServiceClass
from gateway.engine.fair_queue import FairQueue, Flow
from gateway.engine.work import Work

PATIENCE = 3  # a caller is overdue after this many times the interval, in batches, at which its share would let it lead
SHARES: dict[ServiceClass, float] = {"interactive": 0.9, "background": 0.1}  # of tokens, while both classes wait
OLDEST_EVERY = 4  # turns of a caller


served_tokens_of, overdue_at_of = attrgetter("served_tokens"), attrgetter("overdue_at")


@dataclass(slots=True, eq=False)
class CallerFlow(Flow):
    """The waiting work of one fairness key in one service class."""

    service_class: ServiceClass = "interactive"
    works: dict[Work, None] = field(default_factory=dict)  # in order of arrival
    overdue_at: float = math.inf  # a batch number
    num_turns: int = 0

    def candidates(self, *, is_leader: bool) -> list[Work]:
        """The caller's requests, the least served first: a short query overtakes its own caller's bulk.

        Every fourth turn of the caller begins with its oldest request instead, so bulk never starves.
        """
        works = list(self.works)
        if len(works) == 1:
            return works
        works.sort(key=served_tokens_of)  # stable: equals by arrival
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
        """Adds a caller that begins to wait."""
        caller = CallerFlow(key, weight, service_class=service_class)
        queue = self.queues[service_class]
        if not queue.waiting:
            self.classes.add(self.class_flows[service_class])
        queue.add(caller)
        self.be_patient(caller)
        return caller

    def leave(self, caller: CallerFlow) -> None:
        """Removes a caller that has no more waiting work."""
        queue = self.queues[caller.service_class]
        queue.remove(caller)
        if not queue.waiting:
            self.classes.remove(self.class_flows[caller.service_class])

    def reweigh(self, caller: CallerFlow, weight: float) -> None:
        self.queues[caller.service_class].reweigh(caller, weight)

    def next_turn(self, may: Callable[[CallerFlow], bool] | None = None) -> list[CallerFlow]:
        """All waiting callers: first the leader of the next batch, then the others in the order in which they fill it.

        With `may`, only those for which it is true; none of them is an empty list, and no turn.
        """
        orders = {self.class_flows[name]: queue.order(may) for name, queue in self.queues.items() if queue.waiting}
        if may is not None:
            orders = {flow: order for flow, order in orders.items() if order}
            if not orders:
                return []
        self.num_batches += 1
        turn = orders[self.classes.order(None if may is None else orders.__contains__)[0]][0]
        callers = [caller for order in orders.values() for caller in order]
        longest_overdue = min(callers, key=overdue_at_of) if len(callers) > 1 else turn
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
        """Called when nothing waits or runs: all callers start level again."""
        self.classes.rest()
        for queue in self.queues.values():
            queue.rest()
