"""`gateway bench` as it is installed, against a gateway as it runs: what it tells is what the server counted."""

import json
import math
import os
import subprocess

import pytest

from compat_tests.process import COMMAND, Gateway
from compat_tests.texts import DIMENSIONS, MODEL

COUNTED = {"requests": "gateway_requests_total", "inputs": "gateway_inputs_total", "tokens": "gateway_input_tokens_total"}
END_SECONDS = 90


def bench(gateway: Gateway, *options: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    command = [COMMAND, "bench", "--url", gateway.base_url, "--seconds", "1", "--warmup-seconds", "0.5", "--inputs", "8", *options]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return subprocess.run(
        command, env={**bare, **environ}, cwd=gateway.folder, capture_output=True, text=True, timeout=END_SECONDS, check=False
    )


@pytest.mark.parametrize("encoding_format", ["base64", "float"])
def test_bench_tells_what_the_server_counted(gateway: Gateway, key: str, encoding_format: str) -> None:
    before = {name: gateway.metric(metric) for name, metric in COUNTED.items()}
    done = bench(gateway, "--json", "--encoding-format", encoding_format, GATEWAY_API_KEY=key)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["model"], report["dimensions"], report["num_errors"]) == (MODEL, DIMENSIONS, 0)
    for name, metric in COUNTED.items():  # the server also saw the warm-up, and what was given up at the end
        assert 0 < report[name] <= gateway.metric(metric) - before[name]
        assert math.isclose(report[f"{name}_per_second"], report[name] / report["seconds"], rel_tol=0.01)
    assert report["inputs"] == 8 * report["requests"]
    assert 30 < report["tokens"] / report["inputs"] < 50  # the texts have 40 tokens on average
    latencies = [report["latency_seconds"][name] for name in ("p50", "p95", "p99", "max")]
    assert latencies[0] > 0
    assert latencies == sorted(latencies)


def test_bench_prints_a_table_and_no_key(gateway: Gateway, key: str) -> None:
    done = bench(gateway, "--model", MODEL, OPENAI_API_KEY=key)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{gateway.base_url}  {MODEL}\n")
    for words in ("requests", "inputs", "tokens", "latency, ms", "p50", "p95", "p99", "errors                0"):
        assert words in done.stdout
    assert key not in done.stdout


def test_bench_that_nobody_lets_in_ends_with_one_line(gateway: Gateway) -> None:
    wrong = "sk-gw-0000000000-" + 43 * "0"
    done = bench(gateway, GATEWAY_API_KEY=wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert "answered 401 invalid_api_key" in done.stderr
    assert done.stderr.count("\n") == 1
    assert wrong not in done.stderr
