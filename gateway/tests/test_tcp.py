"""Peers that are gone without a word: what the kernel is told. That it acts on it, `processes/test_failing_network` sees."""

import socket
import sys

import pytest

from gateway.config import listen_addresses
from gateway.server.listening import SILENT_CLIENT_SECONDS, Listening
from gateway.tcp import NUM_PROBES, notice_silent_peer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems know other options")


def keepalive_of(sock: socket.socket) -> tuple[int, ...]:
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    return (sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *(sock.getsockopt(socket.IPPROTO_TCP, name) for name in names))


@pytest.mark.parametrize(("seconds", "idle", "interval"), [(15.0, 15, 5), (5.0, 5, 2), (0.1, 1, 1)])
def test_a_silent_peer_is_asked_after_so_long(seconds, idle, interval):
    with socket.socket() as sock:
        notice_silent_peer(sock, seconds)
        assert keepalive_of(sock) == (1, idle, interval, NUM_PROBES)


def test_a_client_that_is_gone_is_noticed_on_the_connection_it_was_accepted_on():
    with (
        Listening(listen_addresses("127.0.0.1"), 0).sockets[0] as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert keepalive_of(accepted)[:2] == (1, SILENT_CLIENT_SECONDS)
