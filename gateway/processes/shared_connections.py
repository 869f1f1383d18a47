"""The table of a front's connections, of which all fronts together have `max_connections` at most."""

from collections.abc import Callable
from typing import Any

from gateway.processes.totals import SharedCount, Totals
from gateway.server.connection_table import AddressGroup, ConnectionTable, Refusal, TrackedConnection


class SharedConnectionTable(ConnectionTable):
    """A new connection takes the place of one that waits here; if there is none, `ask_for_room` asks the other fronts.

    The place that another front then makes is there when the next connection comes, or the same one's first request.
    """

    def __init__(self, *args: Any, totals: Totals, front: int, ask_for_room: Callable[[], None], **kwargs: Any) -> None:
        self.connections: SharedCount = totals.of_front("connections", front)
        self.waiting: SharedCount = totals.of_front("waiting", front)
        self.ask_for_room = ask_for_room
        super().__init__(*args, **kwargs)

    def assign_slot(self, member: TrackedConnection) -> Refusal | None:
        """Adds first, then looks at the total: two fronts that take the last place at once may both give it back."""
        self.has_place = self.connections.add(1) <= self.max_connections
        refusal = super().assign_slot(member)
        if refusal is not None:
            self.connections.add(-1)
        return refusal

    def is_full(self) -> bool:
        return not self.has_place

    def make_place(self) -> bool:
        if super().make_place():
            return True
        self.ask_for_room()
        return False

    def join(self, member: TrackedConnection, *groups: AddressGroup) -> None:
        super().join(member, *groups)
        self.count_waiting()

    def wait(self, member: TrackedConnection) -> None:
        super().wait(member)
        self.count_waiting()

    def work(self, member: TrackedConnection) -> None:
        super().work(member)
        self.count_waiting()

    def leave(self, member: TrackedConnection) -> None:
        is_placed = self.placed in member.groups
        super().leave(member)
        if is_placed:
            self.connections.add(-1)

    def count_waiting(self) -> None:
        self.waiting.add(len(self.placed.waiting) - self.waiting.own)
