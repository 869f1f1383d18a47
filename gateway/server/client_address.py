"""The client's address behind trusted proxies (`X-Forwarded-For`). It is for the log alone: no access is granted by address."""

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from gateway.server.headers import value_of

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """Proxies whose x-forwarded-for is believed: each vouches for the address before it. `trusted` are addresses or networks."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self.networks = [ipaddress.ip_network(proxy, strict=False) for proxy in trusted]
        self.is_trusted = lru_cache(maxsize=1024)(self.is_trusted_now)

    def client_of(self, scope: Mapping[str, Any]) -> str | None:
        """Returns the nearest address of an ASGI scope that is not a trusted proxy's, or None on a Unix socket."""
        peer: tuple[str, int] | None = scope["client"]
        if peer is None or not self.networks or not self.is_trusted(peer[0]):
            return peer[0] if peer else None
        nearest: str = peer[0]
        forwarded = value_of(list(scope["headers"])[::-1], b"x-forwarded-for") or b""  # the last of several headers
        for said in reversed(forwarded.decode("latin-1").split(",")):
            address = address_in(said.strip())
            if address is None:
                break
            nearest = str(address)
            if not self.is_trusted(nearest):
                break
        return nearest

    def is_trusted_now(self, text: str) -> bool:
        address = address_in(text)
        return address is not None and any(address in network for network in self.networks)


def address_in(text: str) -> IPAddress | None:
    """Parses an address with or without a port: 1.2.3.4, 1.2.3.4:567, ::1, [::1]:567. Returns None if it is not an address."""
    host = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0] if text.count(":") == 1 else text
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
