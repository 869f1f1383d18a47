"""Parses the addresses in `server.host`: an IP address or a host name, or `unix:` and the path of a socket. Binds nothing."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.tcp import is_loopback

UNIX = "unix:"
MAX_PATH_BYTES = 107  # sockaddr_un of Linux; others have fewer
ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"  # noqa: S104 - only if the operator configures it
LOCAL = {ANY_IPV4: "127.0.0.1", ANY_IPV6: "::1"}  # a client cannot connect to "every interface"


def local_url(url: str) -> str:
    """The URL at which a client on this machine reaches a server that listens at `url`."""
    for wildcard, own in LOCAL.items():
        url = url.replace(ListenAddress(wildcard).url(0)[:-1], ListenAddress(own).url(0)[:-1])
    return url


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An address to listen on. `host` has no brackets; it is empty for a Unix socket, whose path is `path`."""

    host: str
    path: str = ""

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return bool(self.path) or is_loopback(self.host)

    @property
    def reachable(self) -> "ListenAddress":
        """The address at which a client on this machine reaches it."""
        return ListenAddress(LOCAL.get(self.host, self.host), self.path)

    def __str__(self) -> str:
        return UNIX + self.path if self.path else self.host

    def url(self, port: int) -> str:
        """For example http://[::1]:8000, or unix:/run/gateway.sock."""
        if self.path:
            return UNIX + self.path
        return f"http://[{self.host}]:{port}" if self.is_ipv6 else f"http://{self.host}:{port}"


def listen_addresses(hosts: str | Iterable[str]) -> tuple[ListenAddress, ...]:
    """The distinct addresses, in order. A string may contain several, separated by commas.

    Raises ValueError, which names the part that is no address.
    """
    texts = [part for text in ([hosts] if isinstance(hosts, str) else hosts) for part in text.split(",")]
    found = tuple(dict.fromkeys(_address(text.strip()) for text in texts))
    if not found:
        raise ValueError("host: at least one address is needed")
    return found


def _address(text: str) -> ListenAddress:
    if text.startswith(UNIX):
        path = text.removeprefix(UNIX)
        if not path or "\0" in path or len(path.encode()) > MAX_PATH_BYTES:
            raise ValueError(f"host: {text!r}: the path of a Unix socket has 1 to {MAX_PATH_BYTES} bytes")
        return ListenAddress("", path)
    if not text:
        return ListenAddress(ANY_IPV4)
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if "/" in host or re.search(r"\]:\d*$|^[^:]*:\d*$", host):
        raise ValueError(f"host: {text!r} is an address without a scheme or a port; the port is server.port")
    if (":" in host or host != text) and not _is_ipv6(host):
        raise ValueError(f"host: {text!r} is no address")
    return ListenAddress(host)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
