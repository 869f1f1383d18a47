"""Reports of ended batches, as OpenAI's SDKs verify them."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from gateway.config import BatchSettings, Secret
from gateway.tests.batches.conftest import FAST, client_of, created, ended, line, upload, working

SECRET = b"a secret of the webhook"


class Receiver:
    """An address that refuses the first report."""

    def __init__(self):
        self.seen = []
        self.arrived = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                content = self.rfile.read(int(self.headers["content-length"]))
                receiver.seen.append((dict(self.headers), content))
                self.send_response(503 if len(receiver.seen) == 1 else 204)
                self.end_headers()
                if len(receiver.seen) > 1:
                    receiver.arrived.set()

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/hooks?from=gateway"


async def test_an_ended_batch_is_reported_until_the_address_takes_it(make, tmp_path):
    (tmp_path / "secret").write_text("whsec_" + base64.b64encode(SECRET).decode())
    with Receiver() as receiver:
        settings = BatchSettings(webhook_url=receiver.url, webhook_secret=Secret(file=str(tmp_path / "secret")), **FAST)
        async with working(make(batches=settings)) as gateway, client_of(gateway) as client:
            done = await ended(client, await created(client, await upload(gateway, line("a"))))
            assert await asyncio.to_thread(receiver.arrived.wait, 20)
            async with asyncio.timeout(20):
                while await gateway.batches.records.run(lambda: gateway.batches.store.unreported(limit=1)):
                    await asyncio.sleep(0.02)
    (first, content), (second, again) = receiver.seen
    assert content == again
    assert first["webhook-id"] == second["webhook-id"]
    event = json.loads(content)
    assert event["type"] == "batch.completed"
    assert event["data"] == {"id": done["id"]}
    assert event["created_at"] == done["completed_at"]
    signed = f"{second['webhook-id']}.{second['webhook-timestamp']}.".encode() + content
    assert second["webhook-signature"] == "v1," + base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()


def test_an_address_without_a_secret_is_refused():
    with pytest.raises(ValueError, match="webhook_url and webhook_secret belong together"):
        BatchSettings(webhook_url="http://127.0.0.1/")
