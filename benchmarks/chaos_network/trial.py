"""One case tried: the fault begun and ended under load, and what was seen from before it until all is well again."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from benchmarks.chaos_network.case import FIRST, STREAMS, Case, Telling
from benchmarks.chaos_network.fault import Failover, HalfOpen, OneWay, Partition
from benchmarks.chaos_network.load import Load, Outcome
from benchmarks.chaos_network.row import FREED_SECONDS, Row, back_seconds, broken_promises, counted
from benchmarks.chaos_network.scene import PORT, Scene
from benchmarks.chaos_network.watch import Prometheus, connections, logged_at

QUIET_SECONDS = 1.0
RECOVERY_SECONDS = 6.0  # looked at after the fault: longer than service may take
WELL_AGAIN_SECONDS = 2.0  # in the short form it is enough that all went well for so long
LAST_REPLY_SECONDS = 16.0  # beyond a client's own patience
WELL_SECONDS = 60.0


@dataclass(frozen=True)
class Moments:
    """Of the fault's beginning, by both clocks, and from which on the other side could be reached."""

    began: float
    returned: float
    began_at: datetime


class Trial:
    def __init__(self, scene: Scene, load: Load, prometheus: Prometheus, *, is_short: bool) -> None:
        self.scene = scene
        self.load = load
        self.prometheus = prometheus
        self.is_short = is_short

    def run(self, case: Case, fault_seconds: float) -> Row:
        self.wait_until_well()
        first = len(self.load.outcomes)
        time.sleep(QUIET_SECONDS)
        held = self.held_by_clients()
        began, began_at = time.monotonic(), datetime.now(UTC)
        case.fault.begin()
        freed = self.freed_seconds(held, began, fault_seconds)
        case.fault.end()
        returned = began if isinstance(case.fault, HalfOpen) else time.monotonic()
        self.recover(looks_long=not self.is_short or case.telling is not None)
        ended = time.monotonic()
        self.wait_for_replies(ended)
        outcomes = [each for each in self.load.outcomes[first:] if began - QUIET_SECONDS <= each.began <= ended]
        row = self.row(case, outcomes, began, returned)
        is_cut = (
            case.is_client_side and isinstance(case.fault, Partition | OneWay | HalfOpen) and not isinstance(case.fault, Failover)
        )
        row.freed_seconds = freed if is_cut else None
        if case.telling is not None:
            self.heed(case.telling, row, Moments(began, returned, began_at))
        is_gone = case.is_client_side and isinstance(case.fault, Failover)  # the gateway itself
        row.longest_probe_seconds = self.longest_probe_seconds(began, but=FIRST if is_gone else "")
        affected, others = split(case, outcomes)
        row.violations += broken_promises(row, affected, others, case.may_see, is_client_side=case.is_client_side)
        if is_cut and (freed is None or freed > FREED_SECONDS):
            row.violations.append(f"connections of clients that are gone were held for {FREED_SECONDS:g} s")
        if isinstance(case.fault, Failover):
            case.fault.restore()
            self.load.urls = {stream: self.scene.url(stream.gateway) for stream in STREAMS}
        return row

    def recover(self, *, looks_long: bool) -> None:
        """Waits for what comes after the fault. In the short form, until all goes well; but what tells of it must end, too."""
        until = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < until:
            time.sleep(RECOVERY_SECONDS if looks_long else WELL_AGAIN_SECONDS)
            if self.has_been_well(WELL_AGAIN_SECONDS):
                return

    def has_been_well(self, seconds: float) -> bool:
        """Whether every stream was answered in the last seconds, and always well."""
        since = time.monotonic() - seconds
        recent = [each for each in self.load.outcomes[-1000:] if each.ended >= since]
        return {each.stream for each in recent if each.is_good} == STREAMS and all(each.is_good for each in recent)

    def row(self, case: Case, outcomes: list[Outcome], began: float, returned: float) -> Row:
        affected, others = split(case, outcomes)
        during = [each for each in outcomes if each.ended >= began]
        return Row(
            case.pair, case.fault.name, counted(affected), counted(others),
            longest_seconds=max((each.seconds for each in during), default=0.0),
            back_seconds=back_seconds(outcomes, STREAMS, returned),
        )  # fmt: skip

    def heed(self, telling: Telling, row: Row, at: "Moments") -> None:
        """What the operator was told. Callers may never notice a dependency; then its metric says when it is back."""
        row.is_telling = True
        row.told_in_log = logged_at(self.scene.gateways[FIRST].log, set(telling.events), at.began_at - timedelta(seconds=0.1))
        told = self.prometheus.told_at(FIRST, at.began, telling.metric)
        row.told_in_metrics = told - at.began if told else None
        if row.back_seconds is not None:
            quiet = self.prometheus.quiet_at(FIRST, at.began, at.returned, telling.metric)
            row.back_seconds = max(row.back_seconds, quiet - at.returned)

    def held_by_clients(self) -> set[tuple[str, str]]:
        """The first gateway's connections with clients."""
        return connections(self.scene.hosts[FIRST], PORT, self.scene.hosts["clients"].address)

    def freed_seconds(self, held: set[tuple[str, str]], began: float, fault_seconds: float) -> float | None:
        """Until the gateway holds none of these any more; None where it does at the fault's end, which this waits for."""
        freed = None
        while time.monotonic() < began + fault_seconds:
            if freed is None and not held & self.held_by_clients():
                freed = time.monotonic() - began
            time.sleep(0.1)
        return freed

    def longest_probe_seconds(self, since: float, *, but: str) -> float:
        """A failed one is infinitely long."""
        probes = [each for name, seen in self.prometheus.seen.items() if name != but for each in seen.probes if each[0] >= since]
        return max((seconds if status == 200 else float("inf") for _, seconds, status in probes), default=float("inf"))

    def wait_for_replies(self, asked_before: float) -> None:
        """Each request ends by its client's own patience at the latest."""
        while time.monotonic() < asked_before + LAST_REPLY_SECONDS and self.load.oldest() <= asked_before:
            time.sleep(0.1)

    def wait_until_well(self) -> None:
        """Raises RuntimeError where a second in which every stream is answered well never comes."""
        deadline = time.monotonic() + WELL_SECONDS
        while time.monotonic() < deadline:
            time.sleep(1)
            if self.has_been_well(1):
                return
        raise RuntimeError("the gateways did not become well again")


def split(case: Case, outcomes: list[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Those whom the fault concerns, and the others."""
    affected = [each for each in outcomes if each.stream in case.affected]
    return affected, [each for each in outcomes if each.stream not in case.affected]
