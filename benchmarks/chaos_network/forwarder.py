"""A slow and disorderly network: reads packets from one TUN and writes them to another, later and not in their order.

Tail of what netem does, which is not in every kernel. `python -m benchmarks.chaos_network.forwarder IN OUT SECONDS SPREAD_SECONDS`.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
MAX_PACKET_BYTES = 65_535
MAX_PACKETS = 20_000  # under way; more are dropped, as a router would
LATE_SHARE = 0.25  # of the packets, which come after some that left later

Packet = tuple[float, int, bytes]  # due, number, content


@contextmanager
def opened_tun(name: str) -> Iterator[int]:
    """Its descriptor, of a device that is there already. Raises OSError."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
        yield descriptor
    finally:
        os.close(descriptor)


class Line:
    """Packets under way, soonest due first."""

    def __init__(self, seconds: float, spread_seconds: float, chance: random.Random) -> None:
        self.seconds = seconds
        self.spread_seconds = spread_seconds
        self.chance = chance
        self.packets: list[Packet] = []
        self.num_seen = 0

    def add(self, packet: bytes, now: float) -> None:
        is_late = self.chance.random() < LATE_SHARE
        due = now + self.seconds + (self.chance.uniform(0, self.spread_seconds) if is_late else 0.0)
        self.num_seen += 1
        if len(self.packets) < MAX_PACKETS:
            heapq.heappush(self.packets, (due, self.num_seen, packet))

    def due(self, now: float) -> Iterator[bytes]:
        while self.packets and self.packets[0][0] <= now:
            yield heapq.heappop(self.packets)[2]

    def wait_seconds(self, now: float) -> float | None:
        return max(0.0, self.packets[0][0] - now) if self.packets else None


def forward(read_from: int, write_to: int, line: Line) -> None:
    """Without an end: whoever started it kills it."""
    while True:
        ready, _, _ = select.select([read_from], [], [], line.wait_seconds(time.monotonic()))
        if ready:
            line.add(os.read(read_from, MAX_PACKET_BYTES), time.monotonic())
        for packet in line.due(time.monotonic()):
            os.write(write_to, packet)


if __name__ == "__main__":
    with opened_tun(sys.argv[1]) as first, opened_tun(sys.argv[2]) as second:
        forward(first, second, Line(float(sys.argv[3]), float(sys.argv[4]), random.Random(1)))  # noqa: S311 - packets
