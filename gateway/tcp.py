"""Addresses of this machine, and peers that are gone without a word: a cable cut, a host switched off, a firewall that forgot.

TCP alone would wait for some 15 minutes for what it sent to be acknowledged, and for ever where it has nothing to send.
"""

import ipaddress
import socket

NUM_PROBES = 3


def notice_silent_peer(sock: socket.socket, seconds: float) -> None:
    """The kernel asks a peer that says nothing, and ends the connection where none of that is answered.

    After `seconds` of silence at the earliest, and twice as many at the latest. A peer's kernel answers, however busy its
    program is. Connections that a listening socket accepts have its options. Only where the system knows such options (Linux).
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", seconds), ("TCP_KEEPINTVL", seconds / NUM_PROBES), ("TCP_KEEPCNT", NUM_PROBES)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), max(1, round(value)))


def is_loopback(host: str) -> bool:
    """Whether only this machine is reached by that address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
