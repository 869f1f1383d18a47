"""What the network does to a pair of hosts: each fault is begun and ended on the router, which no host knows of."""

import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from benchmarks.chaos_network.namespace import command
from benchmarks.chaos_network.network import SLOW_TABLE, TUN_IN, TUN_OUT, Host, Network

LOSS_PERCENT = 30
DELAY_SECONDS, REORDER_SECONDS = 0.2, 0.05
ROOT = Path(__file__).parents[2]
TABLE = """table ip fault {{
    set fresh {{ type ipv4_addr . inet_service . ipv4_addr . inet_service; size 65535; }}
    chain forward {{
        type filter hook forward priority 0;
        {rules}
    }}
}}
"""


class Fault(ABC):
    name: ClassVar[str]

    def __init__(self, network: Network, first: Host, second: Host) -> None:
        self.network = network
        self.first = first
        self.second = second

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def end(self) -> None: ...


class Filtered(Fault):
    """Rules of the router's `forward` chain; {a} and {b} are the addresses, each rule is there for either direction."""

    rules: ClassVar[tuple[str, ...]]

    def begin(self) -> None:
        pairs = [(self.first.address, self.second.address), (self.second.address, self.first.address)]
        rules = [rule.format(a=a, b=b) for rule in self.rules for a, b in pairs]
        self.network.router.run("nft", "-f", "-", text=TABLE.format(rules="\n        ".join(rules)))

    def end(self) -> None:
        self.network.router.run("nft", "delete", "table", "ip", "fault")


class Partition(Filtered):
    """Nothing passes, and nobody is told: a cable that is cut, a firewall that drops."""

    name = "partition"
    rules = ("ip saddr {a} ip daddr {b} drop",)


class OneWay(Filtered):
    """What the second sends never arrives at the first; the other direction is well."""

    name = "one way only"

    def begin(self) -> None:
        rule = f"ip saddr {self.second.address} ip daddr {self.first.address} drop"
        self.network.router.run("nft", "-f", "-", text=TABLE.format(rules=rule))


class HalfOpen(Filtered):
    """Connections of before are swallowed, new ones work: a firewall or a NAT that forgot its state, a pooler that hangs."""

    name = "half-open"
    rules = (
        "ip saddr {a} ip daddr {b} tcp flags & (syn | ack) == syn add @fresh {{ ip saddr . tcp sport . ip daddr . tcp dport }}",
        "ip saddr {a} ip daddr {b} ip saddr . tcp sport . ip daddr . tcp dport @fresh accept",
        "ip saddr {a} ip daddr {b} ip daddr . tcp dport . ip saddr . tcp sport @fresh accept",
        "ip saddr {a} ip daddr {b} drop",
    )


class Loss(Filtered):
    name = f"{LOSS_PERCENT} % loss"
    rules = (f"ip saddr {{a}} ip daddr {{b}} numgen random mod 100 < {LOSS_PERCENT} drop",)


class Slow(Fault):
    """Their packets go through the forwarder's TUNs: later by 200 ms each way, a quarter of them out of order."""

    name = f"{1000 * DELAY_SECONDS:.0f} ms and reordering"

    def begin(self) -> None:
        words = (TUN_IN, TUN_OUT, str(DELAY_SECONDS), str(REORDER_SECONDS))
        with self.network.router.entered():
            self.forwarder = subprocess.Popen([sys.executable, "-m", "benchmarks.chaos_network.forwarder", *words], cwd=ROOT)
        self.route("add")

    def end(self) -> None:
        self.route("delete")
        self.forwarder.kill()
        self.forwarder.wait()

    def route(self, action: str) -> None:
        for sender, receiver in ((self.first, self.second), (self.second, self.first)):
            pair = ("from", sender.address, "to", receiver.address, "iif", sender.cable)
            self.network.router.run("ip", "rule", action, *pair, "lookup", SLOW_TABLE)


class Hang(Fault):
    """Every process of the second is stopped: its kernel takes connections and acknowledges, and nobody ever answers."""

    name = "hangs"

    def begin(self) -> None:
        self.send(signal.SIGSTOP)

    def end(self) -> None:
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        for pid in command("ip", "netns", "pids", self.second.full_name).split():
            os.kill(int(pid), number)


class Failover(Partition):
    """The second is gone for everyone, and after a while another address has what it had: `promote` makes it so."""

    name = "fails over"

    def __init__(self, network: Network, first: Host, second: Host, promote: Callable[[], None]) -> None:
        super().__init__(network, first, second)
        self.promote = promote

    def begin(self) -> None:
        address = self.second.address
        rules = f"ip saddr {address} drop\n        ip daddr {address} drop"
        self.network.router.run("nft", "-f", "-", text=TABLE.format(rules=rules))

    def end(self) -> None:
        """The dependency is back where it was not before. What was lost stays lost, until `restore`."""
        self.promote()

    def restore(self) -> None:
        super().end()
