"""Reports ended batches to the configured address, signed as OpenAI signs its webhooks (standardwebhooks.com, version 1).

Each report is sent until the address takes it (a 2xx), for DELIVERY_SECONDS at most. It may come twice, with the same `webhook-id`.
Redirects are not followed, and proxies of the environment are not used.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import http.client
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

import msgspec

from gateway import __version__
from gateway.background import BackgroundTask
from gateway.backoff import Backoff
from gateway.batches.job import BatchJob
from gateway.batches.records import BatchRecords
from gateway.config import BatchSettings, secret_value
from gateway.errors import OperatorError, StorageUnavailable
from gateway.log import get_logger
from gateway.metrics import BatchMetrics

TIMEOUT_SECONDS = 10.0
DELIVERY_SECONDS = 72 * 3600.0  # as long as OpenAI tries
RETRIES = Backoff(first_seconds=1.0, max_seconds=600.0)
IDLE_SECONDS = 30.0  # between looks for batches that another gateway ended, and could not report
AT_ONCE = 100
PREFIX = "whsec_"
OK, NOT_OK = 200, 300

log = get_logger()


class WebhookReporter:
    """`wake` when a batch has ended. Several gateways may report the same batch; each marks it once the address has taken it."""

    def __init__(
        self, records: BatchRecords, *, settings: Callable[[], BatchSettings], metrics: BatchMetrics, is_open: Callable[[], bool]
    ) -> None:
        self.records = records
        self.metrics = metrics
        self.settings = settings
        self.is_open = is_open
        self.woken = asyncio.Event()
        self.num_failures = 0
        self.background = BackgroundTask("batch-webhook", self.report_forever)

    def wake(self) -> None:
        self.woken.set()

    async def report_forever(self) -> None:
        while True:
            seconds = IDLE_SECONDS
            if self.is_open() and self.settings().webhook_url is not None:
                try:
                    is_done = await self.report_all()
                except StorageUnavailable:
                    is_done = True
                self.num_failures = 0 if is_done else self.num_failures + 1
                if not is_done:
                    seconds = RETRIES.pause_seconds(self.num_failures)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.woken.wait(), seconds)
            self.woken.clear()

    async def report_all(self) -> bool:
        """Reports all ended batches. Returns whether the address took every one. Raises StorageUnavailable."""
        is_done = True
        for job in await self.records.run(partial(self.records.store.unreported, limit=AT_ONCE)):
            reason = await self.report(job)
            has_given_up = reason is not None and time.time() - _ended_at(job) > DELIVERY_SECONDS
            if reason is None or has_given_up:
                await self.records.run(self.records.store.mark_reported, job)
            if reason is not None:
                is_done = False
                self.metrics.reports_failed.inc()
                log.warning("batch_webhook_failed", batch=job.id, reason=reason, given_up=has_given_up)
        return is_done

    async def report(self, job: BatchJob) -> str | None:
        """Sends one report. Returns why it was not taken, or None."""
        settings = self.settings()
        if settings.webhook_url is None or settings.webhook_secret is None:
            return None
        try:
            secret = _secret_of(secret_value(settings.webhook_secret))
        except OperatorError as error:
            return str(error)
        content = _event_of(job)
        headers = _signed_headers(content, event_id=_event_id(job), secret=secret, now=int(time.time()))
        return await asyncio.to_thread(_post, settings.webhook_url, content, headers)


def _event_of(job: BatchJob) -> bytes:
    """The report, as OpenAI's SDKs parse it."""
    event = {
        "id": _event_id(job), "object": "event", "created_at": _ended_at(job), "type": f"batch.{job.status}",
        "data": {"id": job.id},
    }  # fmt: skip
    return msgspec.json.encode(event)


def _event_id(job: BatchJob) -> str:
    return f"evt_{job.id.removeprefix('batch_')}"


def _ended_at(job: BatchJob) -> int:
    return job.completed_at or job.failed_at or job.expired_at or job.cancelled_at or job.created_at


def _secret_of(text: str) -> bytes:
    """The bytes of a secret as OpenAI gives it: `whsec_` and base64. Raises OperatorError."""
    try:
        return base64.b64decode(text.strip().removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise OperatorError("batches.webhook_secret: it is written whsec_ and base64") from None


def _signed_headers(content: bytes, *, event_id: str, secret: bytes, now: int) -> dict[str, str]:
    """The headers of Standard Webhooks: HMAC-SHA256 over id, time and content."""
    signed = b".".join((event_id.encode(), str(now).encode(), content))
    signature = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": event_id, "webhook-timestamp": str(now), "webhook-signature": f"v1,{signature}"}


def _post(url: str, content: bytes, headers: dict[str, str]) -> str | None:
    """Sends a request, in a thread. Returns why it failed, or None."""
    parts = urlsplit(url)
    try:
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context())
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)
        own = {"content-type": "application/json", "user-agent": f"embeddings-gateway/{__version__}"}
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, body=content, headers={**own, **headers})
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return type(error).__name__
    return None if OK <= status < NOT_OK else f"status {status}"
