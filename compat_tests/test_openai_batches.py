"""OpenAI's own example of a batch, by its SDK; a gateway that is killed again and again; a report that the SDK verifies."""

import base64
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, OpenAI
from openai.types import Batch

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.process import Gateway
from compat_tests.texts import MODEL, prose
from compat_tests.truth import Truth, assert_close
from compat_tests.waiting import until

NODE = Path(__file__).with_name("node")
OwnGateway = Callable[..., Gateway]
ENDED = {"completed", "failed", "expired", "cancelled"}
SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two characters").decode()


def line(custom_id: str, text: str | list[str], **more: Any) -> dict[str, Any]:
    body = {"model": MODEL, "input": text, **more}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}


def begun(client: OpenAI, folder: Path, lines: list[dict[str, Any]], **more: Any) -> Batch:
    """A batch, made as OpenAI's guide does it."""
    path = folder / "batchinput.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    with path.open("rb") as file:
        uploaded = client.files.create(file=file, purpose="batch")
    return client.batches.create(input_file_id=uploaded.id, endpoint="/v1/embeddings", completion_window="24h", **more)


def ended(client: OpenAI, batch: Batch, *, seconds: float = 60) -> Batch:
    until(lambda: client.batches.retrieve(batch.id).status in ENDED, seconds=seconds, what="the end of the batch")
    return client.batches.retrieve(batch.id)


def replies(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(each) for each in client.files.content(file_id).text.splitlines()]


def test_openais_own_example_of_a_batch(client: OpenAI, truth: Truth, tmp_path: Path) -> None:
    texts = [prose(20, number) for number in range(40)]
    lines = [line(f"request-{number}", text, encoding_format="float") for number, text in enumerate(texts)]
    batch = begun(client, tmp_path, [*lines, line("wrong", "")], metadata={"description": "nightly embedding job"})
    assert batch.status in {"validating", "in_progress"}
    assert batch.metadata == {"description": "nightly embedding job"}
    done = ended(client, batch)
    assert done.status == "completed", done.errors
    assert done.model == MODEL
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (41, 40, 1)
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.input_tokens > 0
    found = {each["custom_id"]: each["response"]["body"] for each in replies(client, done.output_file_id)}
    assert_close([found[f"request-{number}"]["data"][0]["embedding"] for number in range(40)], truth.vectors(texts))
    [wrong] = replies(client, done.error_file_id)
    assert wrong["custom_id"] == "wrong"
    assert wrong["response"]["status_code"] == 400
    assert batch.id in [each.id for each in client.batches.list(limit=1)]  # it pages by itself
    with pytest.raises(APIStatusError) as refused:
        client.batches.cancel(batch.id)
    assert refused.value.status_code == 409


def test_a_file_that_breaks_rules_fails_with_their_lines(client: OpenAI, tmp_path: Path) -> None:
    lines = [line("a", "x"), line("a", "y"), {**line("b", "z"), "url": "/v1/rerank"}]
    done = ended(client, begun(client, tmp_path, lines))
    assert done.status == "failed"
    assert done.errors is not None
    assert done.errors.data is not None
    assert [(each.code, each.line) for each in done.errors.data] == [("duplicate_custom_id", 2), ("invalid_url", 3)]


def test_node_does_all_of_it(gateway: Gateway, key: str, truth: Truth, tmp_path: Path) -> None:
    texts = [prose(20, number) for number in range(3)]
    path = tmp_path / "batchinput.jsonl"
    lines = [line(f"request-{number}", text) for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    asked = json.dumps({"base_url": gateway.base_url, "key": key, "path": str(path)})
    ran = subprocess.run(["node", NODE / "batches.mjs"], input=asked, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    said = json.loads(ran.stdout)
    assert said["batch"]["metadata"] == {"description": "nightly eval job"}
    assert (said["ended"]["status"], said["ended"]["request_counts"]["completed"]) == ("completed", 3)
    assert said["batch"]["id"] in said["listed"]
    assert said["refused"] == {"name": "ConflictError", "status": 409}
    found = [json.loads(each)["response"]["body"]["data"][0]["embedding"] for each in said["output"].splitlines()]
    assert_close(found, truth.vectors(texts))


@contextmanager
def receiver() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]], threading.Event]]:
    """An address that takes reports, what it took, and when."""
    seen: list[tuple[dict[str, str], bytes]] = []
    arrived = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()
            arrived.set()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", seen, arrived
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_batch_outlives_kills_and_its_end_is_reported(own_gateway: OwnGateway, tmp_path: Path) -> None:
    """Each request is answered once, however often the gateway is killed, and the SDK verifies the report."""
    (tmp_path / "secret").write_text(SECRET)
    number_of_requests = 8000  # four slices
    with receiver() as (url, seen, arrived):
        gateway = own_gateway(
            GATEWAY__BATCHES__LEASE_SECONDS="1",
            GATEWAY__BATCHES__POLL_SECONDS="0.1",
            GATEWAY__BATCHES__WEBHOOK_URL=url,
            GATEWAY__BATCHES__WEBHOOK_SECRET=json.dumps({"file": str(tmp_path / "secret")}),
        )
        client = OpenAI(base_url=gateway.base_url, api_key=ENVIRONMENT_KEY)
        batch, done = None, 0
        for _ in range(2):
            gateway.start()
            gateway.wait_until_ready()
            if batch is None:
                batch = begun(client, tmp_path, [line(f"id-{number}", f"text {number}") for number in range(number_of_requests)])
            until(lambda done=done, batch=batch: completed(client, batch) > done, seconds=60, what="another slice is done")
            done = completed(client, batch)
            gateway.kill()
        gateway.start()
        gateway.wait_until_ready()
        assert batch is not None
        finished = ended(client, batch)
        assert finished.status == "completed", finished
        assert [each["custom_id"] for each in replies(client, finished.output_file_id)] == [
            f"id-{number}" for number in range(number_of_requests)
        ]
        assert arrived.wait(30)
        headers, content = seen[0]
        event = client.webhooks.unwrap(content.decode(), headers, secret=SECRET)
        assert event.type == "batch.completed"
        assert event.data.id == batch.id
        client.close()
        gateway.stop()
    assert "batch_ended" in gateway.log


def completed(client: OpenAI, batch: Batch) -> int:
    counts = client.batches.retrieve(batch.id).request_counts
    return counts.completed if counts is not None else 0
