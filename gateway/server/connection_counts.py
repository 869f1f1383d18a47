"""The numbers of open connections that bounds are kept for: those of this process, or of all processes that share its port."""

from collections import Counter
from typing import Protocol


class ConnectionCounts(Protocol):
    """Counts connections, all and by address. `num_processes` share them."""

    num_processes: int

    def take(self, maximum: int) -> bool:
        """Counts one more connection, unless there are `maximum`. Returns whether it did."""

    def force(self) -> None:
        """Counts one more connection in any case: another one is about to end."""

    def give_back(self) -> None:
        """Counts one connection less."""

    def take_address(self, address: str, maximum: int | None) -> bool:
        """Counts one more connection of this address, unless it has `maximum`. Returns whether it did."""

    def give_back_address(self, address: str) -> None:
        """Counts one connection less of this address."""

    def ask_for_room(self, address: str | None) -> bool:
        """Asks another process to close a waiting connection, if given of this address. Returns False if there is no other."""


class OwnConnections:
    """The connections of this process, which has its port for itself."""

    num_processes = 1

    def __init__(self) -> None:
        self.number = 0
        self.by_address: Counter[str] = Counter()

    def take(self, maximum: int) -> bool:
        if self.number >= maximum:
            return False
        self.number += 1
        return True

    def force(self) -> None:
        self.number += 1

    def give_back(self) -> None:
        self.number -= 1

    def take_address(self, address: str, maximum: int | None) -> bool:
        if maximum is not None and self.by_address[address] >= maximum:
            return False
        self.by_address[address] += 1
        return True

    def give_back_address(self, address: str) -> None:
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]

    def ask_for_room(self, address: str | None) -> bool:  # noqa: ARG002 - there is no other process
        return False
