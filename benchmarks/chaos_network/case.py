"""Each fault for each pair, and what is promised of it: what callers may see, and what operators must."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.chaos_network.fault import Failover, Fault, HalfOpen, Loss, OneWay, Partition, Slow
from benchmarks.chaos_network.load import NO_ANSWER, Stream
from benchmarks.chaos_network.scene import GATEWAYS, OTHER, REMOTE, Scene
from benchmarks.chaos_network.watch import Metric

STREAMS = frozenset(Stream(gateway, model) for gateway in GATEWAYS for model in (REMOTE, OTHER))
FIRST, SECOND = GATEWAYS
UPSTREAM_FAILS = frozenset({"502 upstream_error", "503 upstream_unavailable", "503 timeout"})


@dataclass(frozen=True)
class Telling:
    """By which log lines, and by which metric, an operator hears that a dependency is away."""

    events: frozenset[str]
    metric: Metric


@dataclass(frozen=True)
class Case:
    """`affected` streams may see `may_see`; whatever else is not 200 breaks a promise. `telling` is None where nothing is away."""

    pair: str
    fault: Fault
    affected: frozenset[Stream] = frozenset()
    may_see: frozenset[str] = frozenset()
    telling: Telling | None = None
    is_client_side: bool = False


@dataclass(frozen=True)
class Pair:
    """What is promised whatever the fault; where it can only slow things down nothing but 200 is."""

    name: str
    first: str
    second: str
    affected: frozenset[Stream] = frozenset()
    may_see: frozenset[str] = frozenset()
    telling: Telling | None = None
    is_client_side: bool = False

    def case(self, fault: Fault, *, affected: frozenset[Stream] | None = None) -> Case:
        is_mere_delay, is_away = isinstance(fault, Slow), isinstance(fault, Partition | OneWay)
        streams = frozenset() if is_mere_delay else self.affected if affected is None else affected
        return Case(self.name, fault, streams, self.may_see, self.telling if is_away else None, self.is_client_side)


STORE = Telling(frozenset({"key_store_unavailable"}), Metric("gateway_keys_snapshot_age_seconds", "", lambda now, _: now > 2))
LIMITER = Telling(frozenset({"limiter_unavailable"}), Metric("gateway_limiter_failures_total", "", lambda now, base: now > base))
UPSTREAM = Telling(frozenset({"upstream_unavailable"}), Metric("gateway_upstream_up", f'"{REMOTE}"', lambda now, base: now < base))
CLIENTS = Pair(
    f"clients, {FIRST}", "clients", FIRST, frozenset(each for each in STREAMS if each.gateway == FIRST), frozenset(NO_ANSWER),
    is_client_side=True,
)  # fmt: skip
PAIRS = (
    CLIENTS,
    Pair(f"{FIRST}, PostgreSQL", FIRST, "postgres1", telling=STORE),
    Pair(f"{FIRST}, Redis", FIRST, "redis1", telling=LIMITER),
    Pair(f"{FIRST}, upstream", FIRST, "upstream1", frozenset({Stream(FIRST, REMOTE)}), UPSTREAM_FAILS, UPSTREAM),
)
FAULTS = (Partition, OneWay, HalfOpen, Loss, Slow)
SHORT = {"partition": {pair.name for pair in PAIRS}, "half-open": {pair.name for pair in PAIRS[1:]}, "fails over": set()}


def cases(scene: Scene, *, is_short: bool) -> Iterator[Case]:
    """The failovers last, as there is no way back from them."""
    hosts = scene.hosts
    for kind in FAULTS:
        for pair in PAIRS:
            if not is_short or pair.name in SHORT.get(kind.name, ()):
                yield pair.case(kind(scene.network, hosts[pair.first], hosts[pair.second]))
    promotions = (None, scene.promote_postgres, scene.promote_redis, scene.promote_upstream)
    for pair, promote in zip(PAIRS, promotions, strict=True):
        if promote is not None and not is_short:
            fault = Failover(scene.network, hosts[pair.first], hosts[pair.second], promote)
            both = frozenset(Stream(gateway, each.model) for gateway in GATEWAYS for each in pair.affected)
            yield pair.case(fault, affected=both)
