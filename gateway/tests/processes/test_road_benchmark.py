"""The benchmark of the road: what it makes of its figures, and which processes it finds."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.figures_page import put
from benchmarks.processes import roles, use_of
from benchmarks.road_figures import Cost, Memory, Road, StepCost, Steps
from benchmarks.road_table import report
from benchmarks.scaling import Limit, RequestCost, limit_of
from benchmarks.step_sampler import STEPS

ABOUT = {"at": "2026-11-29T120000Z", "rounds": 3, "seconds": 6.0, "machine": {"cpu": "a CPU", "cores": 2, "load_before": 0.0}}
ONE, ONE_FRONT, TWO_FRONTS = {"gateway": 300.0}, {"engine": 40.0, "front": 280.0}, {"engine": 35.0, "front": 290.0}


@pytest.mark.parametrize(
    ("cost", "cores", "num_fronts", "expected"),
    [
        (RequestCost(300), 2, 0, Limit(1e6 / 300, "the process")),
        (RequestCost(300), 64, 0, Limit(1e6 / 300, "the process")),
        (RequestCost(40, 260), 16, 1, Limit(1e6 / 260, "the fronts")),
        (RequestCost(40, 260), 64, 16, Limit(25_000, "the engine")),
        (RequestCost(40, 260), 3, 16, Limit(10_000, "all cores")),
        (RequestCost(40, 260, 100), 2, 2, Limit(5_000, "all cores")),
    ],
)
def test_what_is_saturated_first_bounds_the_rate(cost, cores, num_fronts, expected):
    limit = limit_of(cost, cores=cores, num_fronts=num_fronts)
    assert (round(limit.per_second), limit.saturated) == (round(expected.per_second), expected.saturated)


def costs_of(name, rate):
    processes = {0: ONE, 1: ONE_FRONT, 2: TWO_FRONTS}
    return [Cost(name, fronts, rate * (1 + fronts), 0.5, {**spent, "client": 20.0}, 0.75) for fronts, spent in processes.items()]


def test_the_report_shows_costs_by_process_memory_bars_and_larger_machines():
    names = ("single texts", "one client", "single, cached", "a text in bulk")
    memory = [Memory(0, "gateway", 139.0, 102.0), Memory(2, "front-0", 131.0, 45.0)]
    shown = report(Road([cost for name in names for cost in costs_of(name, 1000)], memory), ABOUT)
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "single texts one process 1,000 0.50 300.0 20.0" in lines
    assert "single texts engine, 2 fronts 3,000 0.50 290.0 35.0 0.0 325.0 20.0 75 %" in lines
    assert "two fronts / one process, single texts 3.00x >= 1.45x met" in lines
    assert "the engine's CPU, single text 35 us <= 40 us met" in lines
    assert "a front's memory (RSS) 131 MB <= 130 MB missed" in lines
    assert f"single texts 64 yes 16 {1e6 / 35:,.0f} the engine" in lines
    assert f"single texts 16 no 4 {4e6 / 290:,.0f} the fronts" in lines


def test_the_median_of_the_rounds_counts():
    rounds = [Cost("single texts", 0, rate, rate, {"gateway": rate, "client": 1.0}) for rate in (5.0, 1.0, 3.0)]
    cost = Road(rounds, []).cost("single texts", 0)
    assert (cost.per_second, cost.p50_ms, cost.cpu_us) == (3.0, 3.0, {"gateway": 3.0, "client": 1.0})


def test_processes_are_told_by_the_role_in_their_names():
    """A process of one child, named as `gateway/processes/child.py` names them, and of one that is none of the gateway's."""
    program = textwrap.dedent("""
        import os, sys, time
        for name in ("gateway-front-0", "sleep", "gateway-engine"):
            if (child := os.fork()) == 0:
                open("/proc/self/comm", "w").write(name)
                os.write(1, b".")
                sys.stdin.read()
                os._exit(0)
        sys.stdin.read()
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        said = b""
        while len(said) < 3:
            said += os.read(process.stdout.fileno(), 3)
        found = roles(process.pid)
        assert list(found) == ["supervisor", "engine", "front-0"]
        assert found["supervisor"] == process.pid
        used = use_of(found["engine"])
        assert 0 < used.pss_bytes <= used.rss_bytes
        process.stdin.close()
    assert list(roles(os.getpid())) == ["gateway"]


def test_steps_are_shown_by_process_with_their_sum():
    steps = [
        Steps(
            "single texts", 0, [StepCost("gateway", "body", 12.5), StepCost("gateway", "queue", 20.0), StepCost("gateway", "x", 0)]
        ),
        Steps("single texts", 1, [StepCost("front", "body", 14.0), StepCost("engine", "queue", 21.0)]),
    ]
    shown = report(Road(costs_of("single texts", 1000), [], steps), ABOUT)
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "body single texts 12.5 14.0 0.0" in lines
    assert "queue single texts 20.0 0.0 21.0" in lines
    assert "together single texts 32.5 14.0 21.0" in lines
    assert not [line for line in lines if line.startswith("x ")]
    one = report(Road(costs_of("single texts", 1000), [], steps[:1]), ABOUT)  # --fronts 0 --fronts 2
    assert "together single texts 32.5" in [" ".join(line.split()) for line in one.splitlines()]


def test_each_file_of_a_step_is_there():
    """A file that was renamed would count for another step in silence."""
    root = Path(__file__).parents[3]
    ours = [each for files in STEPS.values() for each in files if each.startswith("gateway/")]
    assert not [each for each in ours if not [*root.glob(f"{each}*")]]


def test_the_sampler_tells_by_the_innermost_file_that_belongs_to_a_step(tmp_path):
    """A program that computes in a file of one step, called from one of another."""
    body, handler = tmp_path / "gateway" / "api" / "body.py", tmp_path / "gateway" / "api" / "door.py"
    body.parent.mkdir(parents=True)
    body.write_text("def run(ends, now):\n    while now() < ends:\n        pass\n")
    handler.write_text("import body, os, signal, time\ndef run():\n    body.run(time.thread_time() + 0.3, time.thread_time)\n")
    program = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from benchmarks.step_sampler import BEGIN, END, StepSampler
        sys.path.insert(0, {str(body.parent)!r})
        import door
        StepSampler(Path({str(tmp_path / "steps.json")!r})).install()
        os.kill(os.getpid(), BEGIN)
        door.run()
        os.kill(os.getpid(), END)
    """)
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3])
    found = json.loads((tmp_path / "steps.json").read_text())
    assert max(found, key=found.get) == "body"
    assert found["body"] > 0.5 * sum(found.values())


def test_figures_replace_those_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- road -->\nold\n<!-- end of road -->\nafter\n")
    for figures in ("a \\1 b\nc", "new\n"):
        put(page, "road", figures)
        assert page.read_text() == f"before\n<!-- road -->\n```\n{figures.strip()}\n```\n<!-- end of road -->\nafter\n"
    with pytest.raises(ValueError, match="devices"):
        put(page, "devices", "new")
