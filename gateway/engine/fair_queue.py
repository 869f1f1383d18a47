"""Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queuing", SIGCOMM 1996): whose turn it is, by virtual time.

Each flow has a start. The earliest goes first, and its next start is later by what it was served, divided by its weight. So flows
that wait without pause are served in proportion to their weights.

The virtual clock is the earliest start of all that wait; it only moves forward. A flow that arrives or returns starts at the clock
or at the end of its own last service, whichever is later. So idle flows earn no credit, and earlier service costs a flow nothing
once the others have caught up.

Ours: a flow may be served out of turn, because a batch of another flow had room. Its debt, the tokens by which it is then ahead of
the clock, is bounded. Starts are floats: at 10^12 tokens they are exact to 1/8,000 of a token.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

MAX_REMEMBERED = 1024  # flows that left ahead of the clock; beyond it the debt of the one that left first is forgotten


@dataclass(slots=True, eq=False)
class Flow:
    """A flow to be served. `start` is when its next turn begins, in virtual time: tokens of a flow of weight 1."""

    key: Hashable
    weight: float
    start: float = 0.0


AnyFlow = TypeVar("AnyFlow", bound=Flow)


start_of = attrgetter("start")


class FairQueue(Generic[AnyFlow]):
    """The waiting flows, ordered by start."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.waiting: dict[AnyFlow, None] = {}
        self.finishes: OrderedDict[Hashable, float] = OrderedDict()  # the starts of flows that left ahead of the clock
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

    def order(self, may: Callable[[AnyFlow], bool] | None = None) -> list[AnyFlow]:
        """The waiting flows, the earliest start first; equal starts in order of arrival. Moves the clock to the earliest start.

        With `may`, only those for which it is true. The others keep their starts, and so lead once they may.
        """
        flows = list(self.waiting) if may is None else list(filter(may, self.waiting))
        if len(flows) > 1:
            flows.sort(key=start_of)
        if flows:
            self.clock = max(self.clock, flows[0].start)  # only a flow that was passed over starts before the clock
        return flows

    def charge(self, flow: AnyFlow, num_tokens: int, max_debt: int) -> None:
        """Charges a flow for `num_tokens` served. `max_debt` is how many tokens it may be ahead of the clock."""
        flow.start = max(self.clock, min(flow.start + num_tokens / flow.weight, self.clock + max_debt / flow.weight))

    def rest(self) -> None:
        """Ends a busy period, when nothing waits or runs: all flows start level again, as in the paper."""
        self.clock = max(self.finishes.values(), default=self.clock)
        self.finishes.clear()
