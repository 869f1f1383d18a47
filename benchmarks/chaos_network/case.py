"""Each fault for each pair, and what is promised of it: what callers may see, and what operators must."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.chaos_network.fault import Failover, Fault, HalfOpen, Hang, Loss, OneWay, Partition, Slow
from benchmarks.chaos_network.load import NO_ANSWER, Load, Stream
from benchmarks.chaos_network.scene import GATEWAYS, OTHER, REMOTE, Scene
from benchmarks.chaos_network.watch import Metric

STREAMS = frozenset(Stream(gateway, model) for gateway in GATEWAYS for model in (REMOTE, OTHER))
FIRST, SECOND = GATEWAYS
UPSTREAM_FAILS = frozenset({"502 upstream_error", "503 upstream_unavailable", "503 timeout"})


@dataclass(frozen=True)
class Telling:
    """By which log lines, and by which metric, an operator hears that a dependency is unavailable."""

    events: frozenset[str]
    metric: Metric


@dataclass(frozen=True)
class Case:
    """`affected` streams may see `may_see`; whatever else is not 200 breaks a promise. `telling` is None where nothing fails."""

    pair: str
    fault: Fault
    affected: frozenset[Stream] = frozenset()
    may_see: frozenset[str] = frozenset()
    telling: Telling | None = None
    is_client_side: bool = False


@dataclass(frozen=True)
class Pair:
    """`may_see` is what a fault that keeps the second from answering may show; delays alone show nothing but 200."""

    name: str
    first: str
    second: str
    affected: frozenset[Stream] = frozenset()
    may_see: frozenset[str] = frozenset()
    telling: Telling | None = None
    is_client_side: bool = False

    def case(self, fault: Fault) -> Case:
        # New connections work: the gateway turns to them, where a client that hears nothing is its own master.
        is_mended = isinstance(fault, HalfOpen) and not self.is_client_side
        is_harmless = isinstance(fault, Slow) or is_mended
        is_gone = isinstance(fault, Hang | Failover) and not self.is_client_side  # for both gateways
        concerned = frozenset(each for each in STREAMS if each.model == REMOTE and self.affected) if is_gone else self.affected
        streams = frozenset() if is_harmless else concerned
        is_unavailable = isinstance(fault, Partition | OneWay | Hang)
        return Case(self.name, fault, streams, self.may_see, self.telling if is_unavailable else None, self.is_client_side)


STORE = Telling(frozenset({"key_store_unavailable"}), Metric("gateway_key_snapshot_age_seconds", "", lambda now, _: now > 2))
LIMITER = Telling(frozenset({"limiter_unavailable"}), Metric("gateway_limiter_up", "", lambda now, _: now < 1))
UPSTREAM = Telling(
    frozenset({"upstream_unavailable"}), Metric("gateway_upstream_oldest_request_seconds", f'"{REMOTE}"', lambda now, _: now > 4)
)
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
FAULTS = (Partition, OneWay, Hang, HalfOpen, Loss, Slow)
SHORT = {Partition: PAIRS[1:], HalfOpen: (CLIENTS, PAIRS[3]), Loss: PAIRS[1:2], Slow: PAIRS[3:]}


def cases(scene: Scene, load: Load, *, is_short: bool) -> Iterator[Case]:
    """The failovers last, as there is no way back from them."""
    hosts = scene.hosts
    for kind in FAULTS:
        for pair in SHORT.get(kind, ()) if is_short else PAIRS:
            if kind is not Hang or not pair.is_client_side:
                yield pair.case(kind(scene.network, hosts[pair.first], hosts[pair.second]))
    promotions = (partial(turn_clients, scene, load), scene.promote_postgres, scene.promote_redis, scene.promote_upstream)
    for pair, promote in zip(PAIRS, promotions, strict=True):
        if not is_short:
            yield pair.case(Failover(scene.network, hosts[pair.first], hosts[pair.second], promote))


def turn_clients(scene: Scene, load: Load) -> None:
    """Those of the first gateway go to the second, as a balancer's would."""
    load.urls = {stream: scene.url(SECOND) for stream in load.urls}
