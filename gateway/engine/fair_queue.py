"""Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queuing", SIGCOMM 1996): whose turn it is, by virtual time.

Each flow has a start. The earliest goes first, and its next start is later by what it was served, divided by its weight. So flows
that wait without pause are served in proportion to their weights. The virtual clock is the earliest start of all that wait; it only
moves forward. Who comes, or comes back, starts at the clock or where its own service ended, whichever is later: staying away saves
nothing up, and a past costs nothing that the others have caught up with meanwhile.

Ours: a flow that is served out of its turn, because there was room beside another's work, is ahead of the clock by a bounded debt
only. Starts are floats: at 10^12 tokens exact to 1/8,000 of one.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

MAX_REMEMBERED = 1024  # flows that left ahead of the clock; beyond it the one that left first is forgiven its debt


@dataclass(slots=True, eq=False)
class Flow:
    """Whoever is served; `start` is when its next turn begins, in virtual time: tokens of a flow of weight 1."""

    key: Hashable
    weight: float
    start: float = 0.0


AnyFlow = TypeVar("AnyFlow", bound=Flow)


class FairQueue(Generic[AnyFlow]):
    """The flows that wait."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.waiting: dict[AnyFlow, None] = {}
        self.finishes: OrderedDict[Hashable, float] = OrderedDict()  # where those that left ahead of the clock go on
        self.total_weight = 0.0

    def add(self, flow: AnyFlow) -> None:
        flow.start = max(self.clock, self.finishes.pop(flow.key, 0.0))
        self.waiting[flow] = None
        self.total_weight += flow.weight

    def remove(self, flow: AnyFlow) -> None:
        del self.waiting[flow]
        self.total_weight = self.total_weight - flow.weight if self.waiting else 0.0
        if flow.start > self.clock:
            self.finishes[flow.key] = flow.start
            if len(self.finishes) > MAX_REMEMBERED:
                self.finishes.popitem(last=False)

    def reweigh(self, flow: AnyFlow, weight: float) -> None:
        self.total_weight += weight - flow.weight
        flow.weight = weight

    def order(self) -> list[AnyFlow]:
        """The flows that wait, the earliest start first; those that start together by arrival."""
        flows = sorted(self.waiting, key=lambda flow: flow.start)
        if flows:
            self.clock = flows[0].start  # never before the clock: nobody starts there
        return flows

    def charge(self, flow: AnyFlow, num_tokens: int, max_debt: int) -> None:
        """`num_tokens` were served. `max_debt` is how many a flow may be ahead."""
        flow.start = max(self.clock, min(flow.start + num_tokens / flow.weight, self.clock + max_debt / flow.weight))

    def rest(self) -> None:
        """Nothing waits, and nothing runs: whoever comes next starts level with all others. So does the paper end a busy period."""
        self.clock = max(self.finishes.values(), default=self.clock)
        self.finishes.clear()
