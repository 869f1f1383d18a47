"""LRU eviction of connections: at `max_connections` a new connection closes the one that has waited longest.

nginx does the same when `worker_connections` run short (ngx_drain_connections). A connection waits while no request of it is being
answered: it is idle, has sent nothing yet, or has sent half a head. So neither clients that hold connections open nor the pools of
many ordinary clients keep a new client out. A new connection is refused only if every slot has a request in flight. Even then it
may ask for a probe: PROBE_CONNECTIONS are kept for that.
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, Protocol

from gateway.config import ServerSettings
from gateway.errors import Overloaded
from gateway.metrics import Metrics
from gateway.server.client_address import TrustedProxies, address_in
from gateway.server.connection_counts import ConnectionCounts, OwnConnections

# Beyond `max_connections`. Any client may fill these too, and evict another there: at 4,000 new connections a second a probe has 32
# ms to send its request after it has connected. A probe on the same network sends it within 1 ms.
PROBE_CONNECTIONS = 128
IPV6_PREFIX = 64  # one client's own network: it has 2^64 addresses to choose from

Refusal = Literal["server_overloaded", "address_limit"]


class TrackedConnection(Protocol):
    """A connection as the table needs it."""

    groups: tuple["AddressGroup", ...]

    @property
    def peer(self) -> str | None:
        """The client's address, or None on a Unix socket."""

    def make_room(self) -> None:
        """Closes this connection, which is waiting for its next request."""

    def hold(self) -> None:
        """Reads nothing, until `resume`: another process may make room for it."""

    def resume(self) -> None:
        """Reads on."""


class AddressGroup:
    """Connections that are counted together. `waiting` are those that wait, longest waiting first."""

    __slots__ = ("address", "num_open", "waiting")

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        self.num_open = 0
        self.waiting: dict[TrackedConnection, None] = {}


class ConnectionTable:
    """Every open connection: in `placed` and in the group of its address, or in `spare`. Used on the event loop alone.

    `counts` are those that the bounds hold for. Where other processes share them, a connection for which there is no room here is
    held until another process has closed one of its own. `cut_slowest` aborts a reply whose client stopped reading, if there is
    one: the last resort before a new connection is refused.
    """

    def __init__(
        self,
        settings: ServerSettings,
        metrics: Metrics,
        *,
        cut_slowest: Callable[[], bool],
        counts: ConnectionCounts | None = None,
    ) -> None:
        self.metrics = metrics
        self.counts = counts or OwnConnections()
        self.held: dict[TrackedConnection, None] = {}
        self.cut_slowest = cut_slowest
        self.placed, self.spare = AddressGroup(), AddressGroup()
        self.by_address: dict[str, AddressGroup] = {}
        self.max_connections = self.max_own = settings.max_connections
        self.configure(settings)
        metrics.http.open_connections_of(active=lambda: self.num_open - self.num_waiting, waiting=lambda: self.num_waiting)

    @property
    def max_connections(self) -> int:
        return self._max_connections

    @max_connections.setter
    def max_connections(self, number: int) -> None:
        self._max_connections = number
        self.metrics.http.max_connections.set(number)

    def limit_own(self, affordable: int) -> None:
        """This process can hold no more than `affordable` connections; so all together hold no more than so many times that."""
        self.max_own = affordable
        self.max_connections = min(self.max_connections, affordable * self.counts.num_processes)

    def configure(self, settings: ServerSettings) -> None:
        """Applies the settings that may change while connections are open."""
        self.max_per_address = settings.max_connections_per_address
        self.address_of = lru_cache(maxsize=1024)(Addresses(TrustedProxies(settings.trusted_proxies)).of)

    @property
    def num_open(self) -> int:
        return self.placed.num_open + self.spare.num_open

    @property
    def num_waiting(self) -> int:
        return len(self.placed.waiting) + len(self.spare.waiting)

    def enter(self, member: TrackedConnection) -> Refusal | None:
        """Adds a new connection. Returns why it has no slot, if so; it stays open all the same while it is in a group."""
        refusal = self.assign_slot(member)
        if refusal is not None and (self.spare.num_open < PROBE_CONNECTIONS or self.evict(self.spare)):
            self.join(member, self.spare)
            self.ask_for_room(member, refusal)
        return refusal

    def ask_for_room(self, member: TrackedConnection, refusal: Refusal) -> None:
        """Holds a refused connection while another process makes room for it, if there is one."""
        address = self.address_of(member.peer) if refusal == "address_limit" and member.peer is not None else None
        if self.counts.ask_for_room(address):
            self.held[member] = None
            member.hold()

    def resume_held(self) -> None:
        """The connection that has been held longest reads on, and tries again: another process has made room, or has none."""
        if (member := next(iter(self.held), None)) is not None:
            self.resume(member)

    def resume(self, member: TrackedConnection) -> None:
        """A connection that is held reads on. Idempotent."""
        if member in self.held:
            del self.held[member]
            member.resume()

    def make_room(self, address: str | None) -> bool:
        """For another process: closes the connection that has waited longest, if given of this address. False if none waits."""
        group = self.placed if address is None else self.by_address.get(address)
        return group is not None and self.evict(group)

    def assign_slot(self, member: TrackedConnection) -> Refusal | None:
        """Gives the connection a slot, if need be by eviction. One in `spare` may try again. Returns the refusal, or None."""
        address = None if member.peer is None else self.address_of(member.peer)
        if address is not None and not self.take_address(address):
            return "address_limit"
        if not self.take_slot():
            if address is not None:
                self.counts.give_back_address(address)
            return "server_overloaded"
        self.leave(member)
        self.join(member, self.placed, *([] if address is None else [self.by_address.setdefault(address, AddressGroup(address))]))
        return None

    def take_address(self, address: str) -> bool:
        """Counts one more connection of the address, if need be by eviction of another."""
        if self.counts.take_address(address, self.max_per_address):
            return True
        group = self.by_address.get(address)
        return group is not None and self.evict(group) and self.counts.take_address(address, self.max_per_address)

    def take_slot(self) -> bool:
        """Counts one more connection, if need be by eviction, or as the last resort by cutting a slow reader."""
        while self.placed.num_open >= self.max_own or not self.counts.take(self.max_connections):
            if not self.evict(self.placed):
                if not self.cut_slowest():
                    return False
                self.counts.force()
                return True
        return True

    def evict(self, group: AddressGroup) -> bool:
        """Closes the connection that has waited longest. Returns False if none waits."""
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
        """Marks it as the latest to wait: for its first or next request, or for the rest of a head."""
        for group in member.groups:
            group.waiting.pop(member, None)
            group.waiting[member] = None

    def work(self, member: TrackedConnection) -> None:
        """Marks it as busy: a request of it is being answered."""
        for group in member.groups:
            group.waiting.pop(member, None)

    def leave(self, member: TrackedConnection) -> None:
        """Removes a connection that is closed, or is about to be. Idempotent."""
        self.work(member)
        self.held.pop(member, None)
        for group in member.groups:
            group.num_open -= 1
            if group is self.placed:
                self.counts.give_back()
            elif group.address is not None:
                self.counts.give_back_address(group.address)
                if not group.num_open:
                    self.by_address.pop(group.address, None)
        member.groups = ()


class Addresses:
    """The key by which connections are counted together."""

    def __init__(self, proxies: TrustedProxies) -> None:
        self.proxies = proxies

    def of(self, peer: str) -> str | None:
        """Returns the address, or for IPv6 its /64; None for a trusted proxy, because many clients are behind it."""
        if self.proxies.is_trusted(peer):
            return None
        address = address_in(peer)
        if isinstance(address, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((int(address), IPV6_PREFIX), strict=False))
        return str(address) if address is not None else peer


def too_many(refusal: Refusal) -> Overloaded:
    whose = " from your address" if refusal == "address_limit" else ""
    return Overloaded(f"Too many connections are open{whose}.")
