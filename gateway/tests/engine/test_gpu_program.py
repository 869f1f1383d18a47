"""The program for GPUs, on a CPU: the same code with small models, without OpenVINO and what else such a machine has not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.pack import MAX_BYTES, PACKAGES, carry_minilm, size_of
from benchmarks.gpu.plan import Plan, Skipped

ROOT = Path(__file__).parents[3]
ABSENT = ("openvino", "pytest", "hypothesis", "litestar", "uvicorn", "sqlalchemy", "aiohttp", "click")
SECONDS = 600
LINES = 12
NEEDS_CUDA = {"batches_without_padding", "a_full_device_fails_nobody", "small_batches_as_graphs"}


@pytest.mark.timeout(SECONDS + 60)
def test_it_runs_on_a_cpu_without_openvino_and_prints_a_table_and_json(tmp_path):
    code = f"""
        import runpy, sys
        for name in {ABSENT!r}:
            sys.modules[name] = None
        sys.argv = ["gpu", "--device", "cpu", "--small", "--json", {str(tmp_path / "gpu.json")!r}]
        runpy.run_module("benchmarks.gpu", run_name="__main__")
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    environ = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", lines]
    ended = subprocess.run(command, check=False, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    outcomes = {line["name"]: line["outcome"] for line in report["lines"]}
    assert len(outcomes) == LINES
    assert {name for name, outcome in outcomes.items() if outcome != "passed"} == NEEDS_CUDA
    assert {name for name in outcomes if name in ended.stdout} == set(outcomes)
    assert report["machine"]["device"] == "cpu"
    by_name = {line["name"]: line["seen"] for line in report["lines"]}
    assert by_name["overflow_in_float16_falls_back"]["used"] == "bfloat16"
    assert set(by_name["minilm_speed"]) == {"gateway", "encode", "gateway_over_encode"}


def test_a_line_that_fails_is_told_and_costs_the_others_nothing(tmp_path, capsys):
    from benchmarks.gpu.__main__ import line_of

    def fails(plan):
        raise ValueError("no such kernel")

    def skips(plan):
        raise Skipped("there is none")

    plan = Plan("cpu", tmp_path, tmp_path, is_small=True)
    assert [line_of(each, plan).outcome for each in (fails, skips, lambda _: {"a": 1})] == ["FAILED", "skipped", "passed"]
    assert "ValueError: no such kernel" in capsys.readouterr().out
    late = Plan("cpu", tmp_path, tmp_path, is_small=True, deadline=0)
    assert line_of(lambda _: {}, late).outcome == "skipped"


def test_what_is_carried_is_small_and_minilm_is_still_itself(tmp_path):
    carry_minilm(tmp_path / "minilm")
    assert size_of(tmp_path) < MAX_BYTES - 10_000_000  # the wheels' part, which was 6 MB
    assert json.loads((tmp_path / "minilm" / "config.json").read_text())["dtype"] == "float16"
    makefile = (ROOT / "Makefile").read_text()
    assert all(package in makefile for package in PACKAGES)
