"""The connections of all fronts together, which `max_connections` and `max_connections_per_address` bound."""

from collections.abc import Callable

from gateway.processes.totals import Totals


class SharedConnections:
    """A front's ConnectionCounts. `ask` asks the other fronts for room, if given for a connection of that address."""

    def __init__(self, totals: Totals, front: int, *, ask: Callable[[str | None], None]) -> None:
        self.num_processes = totals.num_fronts
        self.number = totals.of_front("connections", front)
        self.by_address = totals.by_address(front)
        self.ask = ask

    def take(self, maximum: int) -> bool:
        if self.number.add(1) <= maximum:
            return True
        self.number.add(-1)
        return False

    def force(self) -> None:
        self.number.add(1)

    def give_back(self) -> None:
        self.number.add(-1)

    def take_address(self, address: str, maximum: int | None) -> bool:
        number = self.by_address.add(address, 1)
        if maximum is None or number <= maximum:
            return True
        self.by_address.add(address, -1)
        return False

    def give_back_address(self, address: str) -> None:
        self.by_address.add(address, -1)

    def ask_for_room(self, address: str | None) -> bool:
        self.ask(address)
        return True
