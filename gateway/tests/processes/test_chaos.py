"""The short form of `make chaos`, and what its clients are judged by."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.chaos.traffic import Traffic

ROOT = Path(__file__).parents[3]


@pytest.mark.alone
def test_processes_are_killed_at_random_and_nobody_gets_a_wrong_answer():
    command = [sys.executable, "-m", "benchmarks.chaos", "--seconds", "6", "--clients", "6", "--seed", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout


REFUSAL = {"error": {"message": "later", "code": "engine_unavailable"}}
ROW = {"object": "embedding", "index": 0, "embedding": [0.0] * 384}


@pytest.mark.parametrize(
    ("reply", "num_wrong"),
    [
        (httpx.Response(503, json=REFUSAL, headers={"retry-after": "0"}), 0),
        (httpx.Response(503, json=REFUSAL), 1),
        (httpx.Response(503, text="gone"), 1),
        (httpx.Response(500, json=REFUSAL, headers={"retry-after": "0"}), 1),
        (httpx.Response(200, json={"data": [ROW]}), 1),
        (httpx.Response(200, json={"data": []}), 1),
        (httpx.ReadError("lost"), 0),
        (httpx.ReadTimeout("hangs"), 1),
    ],
)
async def test_what_is_not_promised_is_found(reply, num_wrong):
    def answer(_):
        if isinstance(reply, Exception):
            raise reply
        return reply

    traffic = Traffic("http://gateway", seed=1)
    async with httpx.AsyncClient(base_url="http://gateway", transport=httpx.MockTransport(answer)) as client:
        await traffic.ask(client, [0], retries=0)
    assert len(traffic.tally.wrong) == num_wrong
