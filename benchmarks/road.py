"""What the road of a request costs, by process: `make bench BENCH='--only road'`, or `python -m benchmarks.road`.

The device costs nothing (free_device.py), so all CPU time is the gateway's own. One process, one front and two are measured in
turns, on all cores, with wrk on the same ones. CPU time is from /proc, of each process by itself.
"""

import argparse
import contextlib
import itertools
import resource
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import corpus, figures_page, load, road_table
from benchmarks.machine import machine
from benchmarks.processes import cpu_seconds, roles, use_of
from benchmarks.program import CACHED, GATEWAY, HERE, LIMITED, OPEN, RATE_LIMITED, Program
from benchmarks.road_figures import Cost, Memory, Road, Steps
from benchmarks.road_steps import measured_steps
from benchmarks.rounds import add_options, kept, now
from benchmarks.server import Server

MODES = (0, 1, 2)  # fronts; 0 is one process that is all of the gateway
CLIENTS, BULK_CLIENTS = 32, 4
STEPPED = ("single texts", "single, cached", "a text in bulk")
MIN_STEP_SECONDS = 4.0  # some 4,000 samples
NUM_KNOWN = 8  # requests of 64 texts that the cache is warm with
NO_CACHE = {"GATEWAY__CACHE__MAX_BYTES": "0"}
PROGRAMS = {
    "keys": GATEWAY,
    "open": OPEN.configured(**NO_CACHE),
    "limits": RATE_LIMITED.configured(**NO_CACHE),
    "queues": LIMITED.configured(**NO_CACHE),
    "cached": CACHED,
}


@dataclass(frozen=True)
class Case:
    """One load: `program` is a name of PROGRAMS, `bodies` one of bodies_of(), `num_texts` the texts of a request."""

    name: str
    program: str
    bodies: str
    clients: int = CLIENTS
    num_texts: int = 1


CASES = (
    Case("single texts", "keys", "single"),
    Case("one client", "keys", "single", clients=1),
    Case("single, no keys", "open", "single"),
    Case("single, limits", "limits", "single"),
    Case("single, queues", "queues", "single"),  # limits of concurrent requests, too
    Case("single, cached", "cached", "known"),
    Case("a text in bulk", "keys", "bulk", clients=BULK_CLIENTS, num_texts=corpus.INPUTS),
    Case("in bulk, cached", "cached", "known bulk", clients=BULK_CLIENTS, num_texts=corpus.INPUTS),
)


def free(program: Program, num_fronts: int, *more: str) -> Program:
    command = (sys.executable, "-m", "benchmarks.free_device", "--fronts", str(num_fronts), *more)
    return replace(program, name="free device", command=command).configured(PYTHONPATH=str(HERE.parent))


def bodies_of(folder: Path) -> dict[str, Path]:
    requests = corpus.corpus().requests
    single, known = list(itertools.chain(*requests)), requests[:NUM_KNOWN]
    sent = {"single": single, "bulk": requests, "known": list(itertools.chain(*known)), "known bulk": known}
    return {name: load.bodies_file(folder / name.replace(" ", "-"), inputs) for name, inputs in sent.items()}


def measure(case: Case, server: Server, bodies: Path, *, num_fronts: int, seconds: float) -> Cost:
    """Runs the load once, after a quarter of it to warm up."""
    load.load(server, bodies, clients=case.clients, seconds=seconds / 4)
    pids = roles(server.process.pid)
    before, client_before = {role: cpu_seconds(pid) for role, pid in pids.items()}, _waited_seconds()
    seen = load.load(server, bodies, clients=case.clients, seconds=seconds)
    spent = {role: cpu_seconds(pid) - before[role] for role, pid in pids.items()}
    fronts = [spent.pop(role) for role in list(spent) if role.startswith("front")]
    spent |= {"front": sum(fronts)} if fronts else {}
    spent["client"] = _waited_seconds() - client_before
    num_texts = seen.num_requests * case.num_texts
    cpu_us = {role: 1e6 * each / num_texts for role, each in spent.items()}
    busiest = max(fronts, default=1.0) / (sum(fronts) or 1.0)
    return Cost(case.name, num_fronts, seen.requests_per_second * case.num_texts, 1e3 * seen.p50, cpu_us, busiest)


def _waited_seconds() -> float:
    """CPU time of the children that have ended: of wrk, as the servers go on."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def gateways(folder: Path, num_fronts: int, names: Iterable[str]) -> Iterator[dict[str, Server]]:
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(Server(free(PROGRAMS[name], num_fronts), folder / f"{name}-{num_fronts}"))
            for name in dict.fromkeys(names)
        }


def measured(cases: Sequence[Case], modes: Sequence[int], *, num_rounds: int, seconds: float) -> Road:
    costs: list[Cost] = []
    memory: list[Memory] = []
    with tempfile.TemporaryDirectory(prefix="gateway-road-") as name:
        folder = Path(name)
        bodies = bodies_of(folder)
        for number in range(num_rounds):
            for num_fronts in modes if number % 2 == 0 else reversed(modes):
                with gateways(folder, num_fronts, [case.program for case in cases]) as servers:
                    for case in cases:
                        server = servers[case.program]
                        costs.append(measure(case, server, bodies[case.bodies], num_fronts=num_fronts, seconds=seconds))
                        print(f"round {number + 1}: {road_table.line(costs[-1])}", file=sys.stderr, flush=True)
                    if number == num_rounds - 1:
                        memory += memory_of(servers[cases[0].program], num_fronts)
        stepped = [case for case in cases if case.name in STEPPED]
        steps = [steps_of(case, num_fronts, folder, bodies, seconds) for case in stepped for num_fronts in modes if num_fronts < 2]
    return Road(costs, memory, steps)


def steps_of(case: Case, num_fronts: int, folder: Path, bodies: Mapping[str, Path], seconds: float) -> Steps:
    """What each step costs: of a gateway by itself, as the sampler in it takes a little too."""
    written = folder / "steps"
    written.mkdir(exist_ok=True)
    program = free(PROGRAMS[case.program], num_fronts, "--steps", str(written))
    with Server(program, folder / f"{case.program}-steps") as server:
        seen = measured_steps(server, bodies[case.bodies], written, clients=case.clients, seconds=max(seconds, MIN_STEP_SECONDS))
    costs = [replace(cost, cpu_us=cost.cpu_us / case.num_texts) for cost in seen]
    print(f"steps: {case.name}, {road_table.mode(num_fronts)}", file=sys.stderr, flush=True)
    return Steps(case.name, num_fronts, costs)


def memory_of(server: Server, num_fronts: int) -> list[Memory]:
    uses = {role: use_of(pid) for role, pid in roles(server.process.pid).items()}
    return [Memory(num_fronts, role, use.rss_bytes / 1e6, use.pss_bytes / 1e6) for role, use in uses.items()]


def run(cases: Sequence[Case] = CASES, modes: Sequence[int] = MODES, *, num_rounds: int, seconds: float) -> str:
    """Measures, keeps the figures of every round as JSON, and returns the tables."""
    about = {"at": now(), "machine": machine(), "rounds": num_rounds, "seconds": seconds}
    road = measured(cases, modes, num_rounds=num_rounds, seconds=seconds)
    print(kept(f"{about['at']}-road", {**about, **asdict(road)}), file=sys.stderr)
    return road_table.report(road, about)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.road", description=__doc__)
    add_options(parser)
    parser.add_argument("--load", action="append", choices=[case.name for case in CASES], help="this one alone; repeatable")
    parser.add_argument("--fronts", action="append", type=int, help="so many alone; repeatable; 0 is one process")
    parser.add_argument("--into", type=Path, help="a page whose figures are replaced: docs/cost.md")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.load or case.name in options.load]
    tables = run(cases, options.fronts or MODES, num_rounds=options.rounds, seconds=options.seconds)
    print(tables)
    if options.into is not None:
        figures_page.put(options.into, "road", tables)


if __name__ == "__main__":
    main()
