"""A batch outlives `kill -9` in a row, each request answered once: of one process, or of supervisor, engine and fronts in turn.

Here they are two, of several processes: compat_tests/ kills one. `make batch-kills` makes them ten, and kills both.
"""

import base64
import json
import os
import time

import httpx
import numpy as np
import pytest

from gateway.testing.process_program import MODEL, expected_vector
from gateway.tests.processes.conftest import Process, running, until
from gateway.tests.processes.test_process_gateway import Processes

KILLS = int(os.environ.get("BATCH_KILLS", "2"))
ENDED = {"completed", "failed", "expired", "cancelled"}
SETTINGS = {
    "GATEWAY__AUTH__MODE": "none", "GATEWAY__FILES__ENABLED": "true", "GATEWAY__FILES__MIN_FREE_BYTES": "0",
    "GATEWAY__BATCHES__LEASE_SECONDS": "0.4", "GATEWAY__BATCHES__POLL_SECONDS": "0.05",
    "GATEWAY__BATCHES__MAX_REQUESTS": "1000000", "GATEWAY__BATCHES__MAX_INPUTS": "1000000",
}  # fmt: skip


class Single(Process):
    """One process, around an embedder that costs nothing."""

    model = "m"
    number = (3 * KILLS + 4) * 2048  # requests: of their slices one to three are done between two kills
    victims = ("whole",)

    def __init__(self, folder, **settings):
        super().__init__(folder, **settings)
        self.environment.pop("GATEWAY__ADMIN__ENABLED")

    def begin(self):
        self.log_file.unlink(missing_ok=True)  # `start` waits for the log's word
        self.start()

    def kill_one(self, _):
        self.kill()
        self.begin()


class Several(Processes):
    """A supervisor, an engine process and two fronts."""

    model = MODEL
    number = (2 * KILLS + 4) * 2048
    victims = ("engine", "front-0", "whole", "front-1")

    def begin(self):
        self.log_file.unlink(missing_ok=True)
        self.start()
        until(self.all_ready, 60)

    def kill_one(self, name):
        if name == "whole":
            self.kill()
            self.begin()
        else:
            self.wait_back(name, super().kill_one(name))


KINDS = [Single, Several] if "BATCH_KILLS" in os.environ else [Several]


def asked(gateway, method, path, **more):
    """Asks until it is answered: fronts and engine come and go."""
    deadline = time.monotonic() + 60
    while True:
        try:
            reply = httpx.request(method, f"{gateway.origin}/v1{path}", timeout=30, **more)
        except httpx.TransportError:
            reply = None
        if reply is not None and reply.status_code == 200:
            return reply
        assert reply is None or reply.status_code >= 500, reply.text
        assert time.monotonic() < deadline
        time.sleep(0.01)


def begun(gateway):
    bodies = ({"model": gateway.model, "input": f"text {number}", "encoding_format": "base64"} for number in range(gateway.number))
    lines = ({"custom_id": f"id-{n}", "method": "POST", "url": "/v1/embeddings", "body": body} for n, body in enumerate(bodies))
    content = "\n".join(map(json.dumps, lines)).encode()
    file = asked(gateway, "POST", "/files", files={"file": ("input.jsonl", content)}, data={"purpose": "batch"}).json()
    body = {"input_file_id": file["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
    return asked(gateway, "POST", "/batches", json=body).json()["id"]


@pytest.mark.parametrize("kind", KINDS)
def test_kills_in_a_row_lose_and_double_nothing(tmp_path, kind):
    with running(tmp_path, 0, kind, **SETTINGS) as gateway:
        batch_id = begun(gateway)

        def batch():
            return asked(gateway, "GET", f"/batches/{batch_id}").json()

        done, num_kills = -1, 0
        while num_kills < KILLS:
            until(lambda done=done: batch()["request_counts"]["completed"] > done, 60)
            found = batch()
            assert found["status"] not in ENDED, (num_kills, found)
            done = found["request_counts"]["completed"]
            gateway.kill_one(kind.victims[num_kills % len(kind.victims)])
            num_kills += 1
        until(lambda: batch()["status"] in ENDED, 90)
        ended = batch()
        assert (ended["status"], ended["error_file_id"]) == ("completed", None), ended
        assert ended["request_counts"] == {"total": kind.number, "completed": kind.number, "failed": 0}
        number, ids = 0, set()
        with httpx.stream("GET", f"{gateway.origin}/v1/files/{ended['output_file_id']}/content", timeout=60) as content:
            for line in content.iter_lines():
                reply = json.loads(line)
                assert reply["custom_id"] == f"id-{number}"
                ids.add(reply["id"])
                if kind is Several and number % 1000 == 0:
                    found = base64.b64decode(reply["response"]["body"]["data"][0]["embedding"])
                    np.testing.assert_allclose(np.frombuffer(found, "<f4"), expected_vector(f"text {number}"), atol=1e-6)
                number += 1
        assert number == len(ids) == kind.number
