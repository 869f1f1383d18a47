"""LRU eviction of connections: who holds a place while many are open, and who closes for a newcomer.

As nginx does when `worker_connections` run short (ngx_drain_connections), it closes the connection that has waited longest. A
connection waits while no request of it is being answered: it is idle, has said nothing yet, or has sent half a head. So neither
strangers who hold connections open, nor the pools of many ordinary clients, keep anybody out. Only where requests in flight hold
every place is a newcomer refused, and even then it may ask for a probe: PROBE_CONNECTIONS are kept for that.
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, Protocol

from gateway.config import ServerSettings
from gateway.errors import Overloaded
from gateway.metrics import Metrics
from gateway.server.client_address import TrustedProxies, address_in

# Beyond `max_connections`. Strangers may fill them too, and push each other out: at 4,000 new connections a second a probe has 32
# ms to send its request after it has connected, and one on the same network sends it within 1 ms.
PROBE_CONNECTIONS = 128
IPV6_PREFIX = 64  # one client's own network: it has 2^64 addresses to choose from

Refusal = Literal["server_overloaded", "address_limit"]


class TrackedConnection(Protocol):
    """A connection, as the table sees it."""

    groups: tuple["AddressGroup", ...]

    @property
    def peer(self) -> str | None:
        """The address it comes from; None on a Unix socket."""

    def make_room(self) -> None:
        """Closes it, which waits for its next request."""


class AddressGroup:
    """Connections that are counted together, and those of them that wait, longest waiting first."""

    __slots__ = ("address", "num_open", "waiting")

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        self.num_open = 0
        self.waiting: dict[TrackedConnection, None] = {}


class ConnectionTable:
    """Every open connection is in `placed` and in the group of its address, or in `spare`. Used on the event loop alone.

    `cut_slowest` ends a reply whose client stopped to read, if there is one: the last resort before a newcomer is refused.
    """

    def __init__(self, settings: ServerSettings, metrics: Metrics, *, cut_slowest: Callable[[], bool]) -> None:
        self.metrics = metrics
        self.cut_slowest = cut_slowest
        self.placed, self.spare = AddressGroup(), AddressGroup()
        self.by_address: dict[str, AddressGroup] = {}
        self.max_connections = settings.max_connections
        self.configure(settings)
        metrics.http.open_connections_of(active=lambda: self.num_open - self.num_waiting, waiting=lambda: self.num_waiting)

    @property
    def max_connections(self) -> int:
        return self._max_connections

    @max_connections.setter
    def max_connections(self, number: int) -> None:
        self._max_connections = number
        self.metrics.http.max_connections.set(number)

    def configure(self, settings: ServerSettings) -> None:
        """What may change while connections are open."""
        self.max_per_address = settings.max_connections_per_address
        self.address_of = lru_cache(maxsize=1024)(Addresses(TrustedProxies(settings.trusted_proxies)).of)

    @property
    def num_open(self) -> int:
        return self.placed.num_open + self.spare.num_open

    @property
    def num_waiting(self) -> int:
        return len(self.placed.waiting) + len(self.spare.waiting)

    def enter(self, member: TrackedConnection) -> Refusal | None:
        """For a new connection. Where there is no place for it, why; it is open all the same for as long as it is in a group."""
        refusal = self.place(member)
        if refusal is not None and (self.spare.num_open < PROBE_CONNECTIONS or self.evict(self.spare)):
            self.join(member, self.spare)
        return refusal

    def place(self, member: TrackedConnection) -> Refusal | None:
        """Gives it a place, if need be another's; or says why there is none. One in `spare` may ask again."""
        address = None if member.peer is None else self.address_of(member.peer)
        of_address = self.by_address.get(address) if address is not None else None
        is_over = self.max_per_address is not None and of_address is not None and of_address.num_open >= self.max_per_address
        if is_over and of_address is not None and not self.evict(of_address):
            return "address_limit"
        if self.placed.num_open >= self.max_connections and not (self.evict(self.placed) or self.cut_slowest()):
            return "server_overloaded"
        self.leave(member)
        self.join(member, self.placed, *([] if address is None else [self.by_address.setdefault(address, AddressGroup(address))]))
        return None

    def evict(self, group: AddressGroup) -> bool:
        """Closes who has waited longest; False where nobody waits."""
        longest = next(iter(group.waiting), None)
        if longest is None:
            return False
        self.leave(longest)
        longest.make_room()
        return True

    def join(self, member: TrackedConnection, *groups: AddressGroup) -> None:
        member.groups = groups
        for group in groups:
            group.num_open += 1
        self.wait(member)

    def wait(self, member: TrackedConnection) -> None:
        """From now on it waits, for the first or the next request, or for the rest of its head."""
        for group in member.groups:
            group.waiting.pop(member, None)
            group.waiting[member] = None

    def work(self, member: TrackedConnection) -> None:
        """From now on a request of it is being answered."""
        for group in member.groups:
            group.waiting.pop(member, None)

    def leave(self, member: TrackedConnection) -> None:
        """It is closed, or is about to be. Idempotent."""
        self.work(member)
        for group in member.groups:
            group.num_open -= 1
            if group.address is not None and not group.num_open:
                self.by_address.pop(group.address, None)
        member.groups = ()


class Addresses:
    """Whose connections are counted together."""

    def __init__(self, proxies: TrustedProxies) -> None:
        self.proxies = proxies

    def of(self, peer: str) -> str | None:
        """The address, of IPv6 its /64; None for a trusted proxy, behind which many clients are."""
        if self.proxies.is_trusted(peer):
            return None
        address = address_in(peer)
        if isinstance(address, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((int(address), IPV6_PREFIX), strict=False))
        return str(address) if address is not None else peer


def too_many(refusal: Refusal) -> Overloaded:
    whose = " from your address" if refusal == "address_limit" else ""
    return Overloaded(f"Too many connections are open{whose}.")
