"""The metrics of one process as values, to be sent to another process and summed there."""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct
from prometheus_client import CollectorRegistry

Merge = Literal["sum", "max", "min", "engine"]


class MetricFamily(Struct, frozen=True, array_like=True):
    """One metric: `samples` are names, labels and values. `merge` says how those of several processes become one."""

    name: str
    kind: str  # counter, gauge or histogram
    help: str
    merge: Merge
    samples: list[tuple[str, dict[str, str], float]]


def snapshot(registry: CollectorRegistry, merges: "dict[str, Merge]", names: Iterable[str] | None = None) -> list[MetricFamily]:
    """The families of a registry as they are now. `merges` are the rules of those that are not summed, by name."""
    collected = registry.collect() if names is None else registry.restricted_registry(names).collect()
    return [
        MetricFamily(
            family.name, family.type, family.documentation, merges.get(family.name, "sum"),
            [(sample.name, sample.labels, sample.value) for sample in family.samples],
        )
        for family in collected
    ]  # fmt: skip
