"""The Ray client: the child process that is connected to the cluster, one for each model row. It ends with its gateway or cluster.

It passes calls to a handle of Ray Serve and answers back to the gateway, and checks the cluster every second. It never repairs a
lost connection: it ends, and the gateway starts another. It does not decode payloads, nor the answers of replicas.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from functools import partial
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from gateway.background import launch
from gateway.calls import framing, message
from gateway.calls.message import CancelCall, ClusterStatus, EmbedCall, EmbedRefusal, Shutdown
from gateway.cluster.connection import join, replicas_of

LOOK_SECONDS = 1.0
FINGERPRINT_EVERY = 10  # checks
ANSWER_SECONDS = 5.0  # for a check of the cluster, and for a replica to return its fingerprint
UNSEEN_SECONDS = 5.0  # without a successful check or call, the cluster counts as unavailable
GIVEN_UP_SECONDS = 15.0  # then the Ray client ends: well before Ray itself ends the process, after 60
NO_REPLICA_SECONDS = 5.0
GRACE_SECONDS = 5.0  # beyond a call's own time: the replica times out first, and with a better Retry-After


class ClientConfig(Struct, frozen=True):
    """The configuration from the gateway. With `replicas_min` 0, calls are taken even while no replica runs."""

    fd: int
    address: str
    application: str
    replicas_min: int


class RayClient:
    def __init__(self, config: ClientConfig, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.config = config
        self.reader, self.writer = reader, writer
        self.handle: Any = None
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.seen_at = time.monotonic()
        self.running_at = time.monotonic()
        self.errors = _lost_errors()

    async def run(self) -> str:
        """Runs until the gateway or the cluster is gone. Returns which."""
        parts = launch(self.watch(), name="watch"), launch(self.listen(), name="listen")
        ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        part = ended.pop()
        error = part.exception()
        return f"its {part.get_name()} died: {type(error).__qualname__}" if error else part.result()

    async def listen(self) -> str:
        while True:
            try:
                header, payload = await framing.read(self.reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                return "the gateway is gone"
            match message.to_client.decode(header):
                case EmbedCall() as call:
                    task = launch(self.answer(call, header, payload), name="answer")
                    self.tasks[call.number] = task
                    task.add_done_callback(partial(self.forget, call.number))
                case CancelCall(number=number) if number in self.tasks:
                    self.tasks[number].cancel()

    def forget(self, number: int, _: asyncio.Task[None]) -> None:
        self.tasks.pop(number, None)

    async def answer(self, call: EmbedCall, header: bytes, payload: bytes) -> None:
        """Forwards one call. Always sends the gateway an answer, unless the gateway cancelled the call."""
        try:
            answer, rows = await self.forward(call, header, payload)
            self.seen_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - a foreign library's errors: classified here, once
            answer, rows = message.encode(self.refusal(call, error)), None
        framing.write(self.writer, answer, memoryview(rows).cast("B") if rows is not None and rows.size else b"")
        await self.writer.drain()

    async def forward(self, call: EmbedCall, header: bytes, payload: bytes) -> tuple[bytes, Any]:
        if self.handle is None:
            raise ConnectionError("no application yet")
        response = self.handle.embed.remote(header, np.frombuffer(payload, dtype=np.int32))
        try:
            async with asyncio.timeout(call.seconds + GRACE_SECONDS):
                answer: tuple[bytes, Any] = await response
                return answer
        except (TimeoutError, asyncio.CancelledError):
            response.cancel()  # the replica drops it, wherever it is queued
            raise

    def refusal(self, call: EmbedCall, error: Exception) -> EmbedRefusal:
        from ray.serve.exceptions import BackPressureError  # noqa: PLC0415 - in this process alone

        if isinstance(error, BackPressureError):
            return EmbedRefusal(number=call.number, code="server_overloaded", retry_after_seconds=error.retry_after_s or 1.0)
        if isinstance(error, TimeoutError):
            return EmbedRefusal(number=call.number, code="timeout")
        code = "lost" if isinstance(error, self.errors) else "failed"
        return EmbedRefusal(number=call.number, code=code, reason=type(error).__name__)

    async def watch(self) -> str:
        """The heartbeat: sends the gateway the cluster's status every second. Returns once the cluster is lost for too long."""
        for number in range(sys.maxsize):
            news: ClusterStatus | None
            try:
                news = await asyncio.wait_for(asyncio.to_thread(self.fetch_status), ANSWER_SECONDS)
                self.seen_at = time.monotonic()
                if news.is_up:
                    news = await self.fetch_replica_info(news, is_due=number % FINGERPRINT_EVERY == 0)
            except Exception as error:  # noqa: BLE001 - as above
                news = None
                if self.unseen_seconds >= UNSEEN_SECONDS or self.handle is None:
                    news = ClusterStatus(is_up=False, detail=f"the cluster does not answer: {type(error).__name__}")
            if news is not None:
                framing.write(self.writer, message.encode(news))
            if self.unseen_seconds > GIVEN_UP_SECONDS:
                return "the cluster is unavailable"
            await asyncio.sleep(LOOK_SECONDS)
        return ""

    @property
    def unseen_seconds(self) -> float:
        return time.monotonic() - self.seen_at

    def fetch_status(self) -> ClusterStatus:
        """The cluster's status now. Blocks. While the cluster is unavailable, it raises errors of Ray."""
        from ray import serve  # noqa: PLC0415 - in this process alone

        found = serve.status().applications.get(self.config.application)
        if found is None:
            self.handle = None
            return ClusterStatus(
                is_up=False, detail=f"the cluster has no application {self.config.application}: gateway cluster deploy"
            )
        states = replicas_of(found)
        if states.get("RUNNING"):
            self.running_at = time.monotonic()
        is_up = not self.config.replicas_min or time.monotonic() - self.running_at < NO_REPLICA_SECONDS
        if self.handle is None:
            is_up = is_up and (not self.config.replicas_min or bool(states.get("RUNNING")))
        detail = "" if is_up else f"no replica is running: {found.message or found.status.value}"
        return ClusterStatus(is_up=is_up, detail=detail, replicas=states)

    async def fetch_replica_info(self, news: ClusterStatus, *, is_due: bool) -> ClusterStatus:
        """At first, gets the handle and sends a ReplicaInfo. Later, if `is_due`, adds a replica's fingerprint to `news`."""
        from ray import serve  # noqa: PLC0415 - in this process alone

        if self.handle is None:
            handle = await asyncio.to_thread(serve.get_app_handle, self.config.application)
            framing.write(self.writer, await asyncio.wait_for(handle.describe.remote(), ANSWER_SECONDS))
            self.handle = handle
        elif is_due and news.replicas.get("RUNNING"):
            with contextlib.suppress(TimeoutError):  # a replica may be too busy to answer; a later check will do
                fingerprint = await asyncio.wait_for(self.handle.fingerprint.remote(), ANSWER_SECONDS)
                return msgspec.structs.replace(news, fingerprint=fingerprint)
        return news


def _lost_errors() -> tuple[type[Exception], ...]:
    """The errors that mean a lost replica, node or connection: the call may succeed in another replica."""
    from ray import exceptions  # noqa: PLC0415 - in this process alone
    from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError  # noqa: PLC0415

    return (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
        exceptions.TaskCancelledError,
        exceptions.RpcError,
        DeploymentUnavailableError,
        ReplicaUnavailableError,
        ConnectionError,
    )


async def run(config: ClientConfig) -> None:
    channel = socket.socket(fileno=config.fd)
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    reason = await asyncio.to_thread(join, config.address)
    if not reason:
        reason = await RayClient(config, reader, writer).run()
    framing.write(writer, message.encode(Shutdown(reason=reason)))
    await asyncio.wait_for(writer.drain(), ANSWER_SECONDS)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the gateway drains first
    config = msgspec.json.decode(sys.argv[1], type=ClientConfig)
    code = 0
    try:
        asyncio.run(run(config))
    except (ConnectionError, TimeoutError):
        code = 1
    finally:
        os._exit(code)  # a thread that waits for a lost cluster, or Ray's own shutdown, would keep the process alive


if __name__ == "__main__":
    main()
