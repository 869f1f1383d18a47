"""TCP keepalive, for peers that vanish without a word (a cable cut, a host switched off, a firewall's lost state); loopback names.

TCP alone would wait for some 15 minutes for what it sent to be acknowledged, and for ever if it has nothing to send.
"""

import ipaddress
import socket

NUM_PROBES = 3


def notice_silent_peer(sock: socket.socket, seconds: float) -> None:
    """TCP keepalive: the kernel probes a silent peer, and ends the connection if no probe is answered.

    The end comes after `seconds` of silence at the earliest, and after twice as many at the latest. The peer's kernel answers,
    however busy its program is. Connections that a listening socket accepts inherit its options. Options that the system does not
    have are skipped: Linux has them.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", seconds), ("TCP_KEEPINTVL", seconds / NUM_PROBES), ("TCP_KEEPCNT", NUM_PROBES)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), max(1, round(value)))


def is_loopback(host: str) -> bool:
    """Whether the address or name is a loopback one, which only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
