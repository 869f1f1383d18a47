"""The hosts and the router between them, which is where the network fails."""

from benchmarks.chaos_network.namespace import Namespace

NETWORK = "198.18"  # of 198.18.0.0/15, which RFC 2544 sets aside for tests of networks
EVERYONE = f"{NETWORK}.0.0/16"
TUN_IN, TUN_OUT = "slow-in", "slow-out"
SLOW_TABLE = "100"


class Host(Namespace):
    """A namespace with a cable to the router, and an address."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(name)
        self.address = f"{NETWORK}.{number}.2"
        self.gateway_address = f"{NETWORK}.{number}.1"
        self.cable = f"to-{name}"


class Network:
    """Hosts by their names, each in a subnet of its own; whatever one sends another passes the router's `forward` chain."""

    def __init__(self, *names: str) -> None:
        self.router = Namespace("router")
        self.hosts = {name: Host(name, number) for number, name in enumerate(names, start=1)}

    def make(self) -> None:
        self.router.make()
        with self.router.entered():
            allow_forwarding()
        for host in self.hosts.values():
            self.connect(host)
        for name in (TUN_IN, TUN_OUT):
            self.router.run("ip", "tuntap", "add", "dev", name, "mode", "tun")
            self.router.run("ip", "link", "set", name, "up")
        self.router.run("ip", "route", "add", "default", "dev", TUN_IN, "table", SLOW_TABLE)

    def connect(self, host: Host) -> None:
        """Made inside the two namespaces: no end of the cable is ever among the machine's own interfaces."""
        host.make()
        ends = ("type", "veth", "peer", "name", "eth0", "netns", host.full_name)
        self.router.run("ip", "link", "add", host.cable, *ends)
        for namespace, device, address in ((self.router, host.cable, host.gateway_address), (host, "eth0", host.address)):
            namespace.run("ip", "address", "add", f"{address}/24", "dev", device)
            namespace.run("ip", "link", "set", device, "up")
        host.run("ip", "route", "add", "default", "via", host.gateway_address)


def allow_forwarding() -> None:
    """Of the namespace this thread is in."""
    with open("/proc/sys/net/ipv4/ip_forward", "w") as setting:  # noqa: PTH123 - Path would do the same
        setting.write("1")
