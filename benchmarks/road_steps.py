"""What each step of a request's road costs, in one process and over a front: shares by the sampler, sums by /proc."""

import json
import os
import time
from pathlib import Path

from benchmarks import load
from benchmarks.processes import cpu_seconds, roles
from benchmarks.road_figures import StepCost
from benchmarks.server import Server
from benchmarks.step_sampler import BEGIN, END, OTHER, STEPS

THREADS = "other threads: devices, tokenisers"
MAX_WRITE_SECONDS = 5.0


def measured_steps(server: Server, bodies: Path, folder: Path, *, clients: int, seconds: float) -> list[StepCost]:
    """The costs of a request's steps, by process, of a gateway that was started with `--steps folder`."""
    load.load(server, bodies, clients=clients, seconds=seconds / 4)
    pids = {role: pid for role, pid in roles(server.process.pid).items() if role != "supervisor"}
    before = {role: cpu_seconds(pid) for role, pid in pids.items()}
    for pid in pids.values():
        os.kill(pid, BEGIN)
    seen = load.load(server, bodies, clients=clients, seconds=seconds)
    spent = {role: cpu_seconds(pid) - before[role] for role, pid in pids.items()}
    for pid in pids.values():
        os.kill(pid, END)
    found = []
    for role, seconds_spent in spent.items():
        of_loop = _written(folder / f"{role}.json")
        rest = max(0.0, 1e6 * seconds_spent - sum(of_loop.values()))
        steps = [*((step, of_loop.get(step, 0.0)) for step in (*STEPS, OTHER)), (THREADS, rest)]
        found += [StepCost(role.partition("-")[0], step, cpu_us / seen.num_requests) for step, cpu_us in steps]
    return found


def _written(path: Path) -> dict[str, float]:
    deadline = time.monotonic() + MAX_WRITE_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path.name} was not written")
        time.sleep(0.02)
    figures: dict[str, float] = json.loads(path.read_text())
    path.unlink()
    return figures
