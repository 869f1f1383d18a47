"""What an operator sees meanwhile: metrics as Prometheus scrapes them, probes, and the log."""

import http.client
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

from benchmarks.chaos_network.namespace import Namespace

EVERY_SECONDS = 0.5
PATIENCE_SECONDS = 5.0
ESTABLISHED = "01"  # in /proc/net/tcp
PROBES = ("/livez", "/readyz", "/metrics")
Values = dict[str, float]  # by series: name and labels, as they stand


@dataclass
class Scraped:
    """One gateway: (moment, values) of each scrape, and (moment, seconds, status) of each probe; status 0 is no answer."""

    scrapes: list[tuple[float, Values]] = field(default_factory=list)
    probes: list[tuple[float, float, int]] = field(default_factory=list)


class Prometheus:
    """A thread in a namespace of its own that no fault touches."""

    def __init__(self, addresses: dict[str, tuple[str, int]]) -> None:
        self.addresses = addresses
        self.seen = {name: Scraped() for name in addresses}
        self.is_over = Event()
        self.threads: list[Thread] = []

    def start(self, host: Namespace) -> None:
        for name in self.addresses:
            self.threads.append(Thread(target=self.live, args=(host, name), name=f"scrape-{name}"))
            self.threads[-1].start()

    def live(self, host: Namespace, name: str) -> None:
        host.enter()
        while not self.is_over.wait(EVERY_SECONDS):
            for path in PROBES:
                self.probe(name, path)

    def probe(self, name: str, path: str) -> None:
        began, status, text = time.monotonic(), 0, ""
        connection = http.client.HTTPConnection(*self.addresses[name], timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            status, text = reply.status, reply.read().decode()
        except OSError:
            pass
        finally:
            connection.close()
        self.seen[name].probes.append((began, time.monotonic() - began, status))
        if path == "/metrics" and status == 200:
            self.seen[name].scrapes.append((time.monotonic(), values_in(text)))

    def stop(self) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def told_at(self, gateway: str, since: float, tells: "Metric") -> float | None:
        """The moment of the first scrape since then that told of it."""
        before = [values for at, values in self.seen[gateway].scrapes if at <= since]
        after = [(at, values) for at, values in self.seen[gateway].scrapes if at > since]
        base = tells.of(before[-1]) if before else 0.0
        return next((at for at, values in after if tells.tells(tells.of(values), base)), None)

    def quiet_at(self, gateway: str, began: float, returned: float, tells: "Metric") -> float:
        """The moment from which no scrape told of it any more."""
        scrapes = self.seen[gateway].scrapes
        before = [values for at, values in scrapes if at <= began]
        base = tells.of(before[-1]) if before else 0.0
        telling = [at for at, values in scrapes if at > returned and tells.tells(tells.of(values), base)]
        return next((at for at, _ in scrapes if telling and at > telling[-1]), telling[-1] if telling else returned)


@dataclass(frozen=True)
class Metric:
    """A series whose name begins with `name` and holds `label`; `tells` compares its sum with what it was before."""

    name: str
    label: str
    tells: Callable[[float, float], bool]

    def of(self, values: Values) -> float:
        return sum(value for series, value in values.items() if series.startswith(self.name) and self.label in series)


def values_in(text: str) -> Values:
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}


def logged_at(path: Path, events: set[str], since: datetime) -> float | None:
    """Seconds from then to the first line of one of these events; None where there is none."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("{"):
            told = json.loads(line)
            at = datetime.fromisoformat(told["timestamp"]).astimezone(UTC)
            if told["event"] in events and at >= since:
                return (at - since).total_seconds()
    return None


def connections(server: Namespace, port: int, client_address: str) -> set[tuple[str, str]]:
    """(own end, other end) of each that the server's kernel calls established, as the kernel writes them."""
    with server.entered():
        rows = [line.split() for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]]
    client = socket.inet_aton(client_address)[::-1].hex().upper()
    ends = ((row[1], row[2]) for row in rows if row[3] == ESTABLISHED)
    return {(own, other) for own, other in ends if own.endswith(f":{port:04X}") and other.startswith(client)}
