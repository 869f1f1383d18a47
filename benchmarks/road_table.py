"""The road's figures as people read them: costs by process, memory, the bars, and what follows for larger machines."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.measures import Bar
from benchmarks.road_figures import Cost, Road, Steps
from benchmarks.scaling import Limit, RequestCost, limit_of
from benchmarks.table import aligned, short, written
from gateway.processes.workers import fronts_for

COST_COLUMNS = (
    "load",
    "processes",
    "texts/s",
    "p50 ms",
    "fronts us",
    "engine us",
    "supervisor us",
    "gateway us",
    "wrk us",
    "busiest front",
)
MEMORY_COLUMNS = ("processes", "process", "RSS MB", "PSS MB")
STEP_COLUMNS = ("step", "load", "one process us", "front us", "engine us")
STEP_PROCESSES = ((0, "gateway"), (1, "front"), (1, "engine"))
BAR_COLUMNS = ("bar", "value", "to reach", "verdict")
CHECK_COLUMNS = ("load", "processes", "predicted /s", "saturated", "measured /s", "of it")
SCALE_COLUMNS = ("load", "cores", "GPU", "fronts", "at most /s", "saturated")
LEAST_US = 0.05
LARGER = (16, 64)
SCALED = ("single texts", "single, cached", "a text in bulk")


def line(cost: Cost) -> str:
    spent = ", ".join(f"{role} {each:.1f}" for role, each in cost.cpu_us.items())
    return f"{cost.case}, {mode(cost.num_fronts)}: {short(cost.per_second)} /s, p50 {cost.p50_ms:.2f} ms; us of CPU: {spent}"


def mode(num_fronts: int) -> str:
    return "one process" if not num_fronts else f"engine, {num_fronts} front{'s' if num_fronts > 1 else ''}"


def report(road: Road, about: Mapping[str, Any]) -> str:
    costs = [road.cost(*each) for each in dict.fromkeys((cost.case, cost.num_fronts) for cost in road.costs)]
    names = list(dict.fromkeys(cost.case for cost in costs))
    costs.sort(key=lambda cost: names.index(cost.case))
    memory = [(mode(each.num_fronts), each.role, f"{each.rss_mb:.0f}", f"{each.pss_mb:.0f}") for each in road.memory]
    tables = [[COST_COLUMNS, *map(_cells, costs)], [MEMORY_COLUMNS, *memory]]
    tables += [[STEP_COLUMNS, *_steps(road, case)] for case in dict.fromkeys(steps.case for steps in road.steps)]
    tables += [[BAR_COLUMNS, *_bars(road)]] if road.has("single texts", "one client") else []
    tables += [[CHECK_COLUMNS, *_checks(costs)]]
    tables += [[SCALE_COLUMNS, *_larger(road)]] if road.has(*SCALED) else []
    place = "{cpu}, {cores} cores, load {load_before} before".format(**about["machine"])
    rounds = f"{about['at'][:10]}, {about['rounds']} rounds of {about['seconds']:g} s"
    return "\n\n".join([f"{rounds}; {place}; CPU time and rates are for a text", *map(aligned, tables)])


def _cells(cost: Cost) -> tuple[str, ...]:
    by_process = (f"{cost.of(role):.1f}" if cost.num_fronts else "" for role in ("front", "engine", "supervisor"))
    busiest = f"{100 * cost.busiest_front:.0f} %" if cost.num_fronts > 1 else ""
    end = (f"{cost.gateway_us:.1f}", f"{cost.of('client'):.1f}", busiest)
    return (cost.case, mode(cost.num_fronts), short(cost.per_second), f"{cost.p50_ms:.2f}", *by_process, *end)


def _steps(road: Road, case: str) -> list[tuple[str, ...]]:
    """A row for each step that costs something, and their sums. What was not measured is empty."""
    found = {steps.num_fronts: steps for steps in road.steps if steps.case == case}
    columns = [(found[num_fronts], role) for num_fronts, role in STEP_PROCESSES if num_fronts in found]
    names = dict.fromkeys(cost.step for steps in found.values() for cost in steps.costs)
    rows = [(name, [steps.of(role, name) for steps, role in columns]) for name in names]
    rows = [(name, spent) for name, spent in rows if max(spent) >= LEAST_US]
    rows.append(("together", [sum(spent) for spent in zip(*(spent for _, spent in rows), strict=True)]))
    return [(name, case, *_step_cells(spent, found)) for name, spent in rows]


def _step_cells(spent: list[float], found: Mapping[int, Steps]) -> Iterator[str]:
    costs = iter(spent)
    for num_fronts, _ in STEP_PROCESSES:
        yield f"{next(costs):.1f}" if num_fronts in found else ""


def _bars(road: Road) -> list[tuple[str, ...]]:
    one, front, fronts = (road.cost("single texts", num_fronts) for num_fronts in (0, 1, 2))
    alone, alone_front = (road.cost("one client", num_fronts) for num_fronts in (0, 1))
    largest = max(each.rss_mb for each in road.memory if each.role.startswith("front"))
    values = [
        ("two fronts / one process, single texts", fronts.per_second / one.per_second, "x", Bar(">=", 1.45, aim=1.45)),
        (
            "fronts and engine: CPU more than one process, single text",
            front.gateway_us - one.gateway_us,
            "us",
            Bar("<=", 60, aim=60),
        ),
        ("the engine's CPU, single text", fronts.of("engine"), "us", Bar("<=", 40, aim=40)),
        ("the engine process adds, p50 of a text alone", 1e3 * (alone_front.p50_ms - alone.p50_ms), "us", Bar("<=", 150, aim=150)),
        ("a front's memory (RSS)", largest, "MB", Bar("<=", 130, aim=130)),
    ]
    return [
        (
            name,
            written(value, unit),
            f"{bar.direction} {written(bar.reach, unit)}",
            "met" if bar.is_met(value, bar.reach) else "missed",
        )
        for name, value, unit, bar in values
    ]


def _cost(cost: Cost, *, is_client_near: bool) -> RequestCost:
    engine_us = cost.of("engine") if cost.num_fronts else cost.gateway_us
    return RequestCost(engine_us, cost.of("front"), cost.of("client") if is_client_near else 0.0)


def _checks(costs: list[Cost]) -> list[tuple[str, ...]]:
    """What the model says of this machine, beside what was measured."""
    cores = len(os.sched_getaffinity(0))
    found = []
    for cost in (each for each in costs if each.case != "one client"):
        limit = limit_of(_cost(cost, is_client_near=True), cores=cores, num_fronts=cost.num_fronts)
        share = f"{100 * cost.per_second / limit.per_second:.0f} %"
        found.append((cost.case, mode(cost.num_fronts), short(limit.per_second), limit.saturated, short(cost.per_second), share))
    return found


def _larger(road: Road) -> list[tuple[str, ...]]:
    found = []
    for case in SCALED:
        cost = _cost(road.cost(case, 2), is_client_near=False)
        for cores in LARGER:
            for has_gpu in (False, True):
                num_fronts = fronts_for(cores, has_gpu=has_gpu)
                limit: Limit = limit_of(cost, cores=cores, num_fronts=num_fronts)
                gpu = "yes" if has_gpu else "no"
                found.append((case, str(cores), gpu, str(num_fronts), short(limit.per_second), limit.saturated))
    return found
