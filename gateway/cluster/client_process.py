"""The supervisor of the Ray client process: starts and restarts it, and fails the calls it had when it died."""

import asyncio
import contextlib
import itertools
import socket
import sys
from collections.abc import Callable, Sequence

import msgspec

from gateway.background import BackgroundTask
from gateway.backoff import Backoff
from gateway.calls import framing, message
from gateway.calls.message import CancelCall, ClusterStatus, EmbedCall, EmbedRefusal, EmbedResult, ReplicaInfo, Shutdown
from gateway.cluster.ray_client import ClientConfig
from gateway.config import child_environment
from gateway.errors import Overloaded
from gateway.log import get_logger

COMMAND = (sys.executable, "-m", "gateway.cluster.ray_client")
# Ray reports usage statistics by default. Its own log of a lost cluster is off, as we log that ourselves.
# Its router runs on the Ray client's own loop: with a thread of its own, every call would change threads twice.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
}
RESTARTS = Backoff(first_seconds=0.5, max_seconds=4.0)
MAX_OUTSTANDING = 4096  # calls; more than admission lets in, so a bound for other callers only
STOP_SECONDS = 3.0
START_SECONDS = 60.0  # to import ray and to join
# Heartbeat: a Ray client sends a message every second, or every six if the cluster is silent. Ray calls that found their cluster
# gone have been seen to block the whole process for a minute.
SILENT_SECONDS = 15.0

log = get_logger()

Answer = tuple[EmbedResult | EmbedRefusal, bytes]


class RayClientProcess:
    """Owns the Ray client process and multiplexes calls over its socket.

    Callbacks, all on the event loop: `on_status_change` gets the cluster's status, `on_replica` a replica's description. `on_death`
    is called if Ray clients are no longer restarted.
    """

    def __init__(  # noqa: PLR0913 - the last two are for tests
        self,
        name: str,
        config: ClientConfig,
        *,
        on_status_change: Callable[[ClusterStatus], None],
        on_replica: Callable[[ReplicaInfo], None],
        on_death: Callable[[], None],
        command: Sequence[str] = COMMAND,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self.name = name
        self.config = config
        self.command, self.silent_seconds = command, silent_seconds  # others in tests
        self.on_status_change, self.on_replica = on_status_change, on_replica
        self.numbers = itertools.count()
        self.waiting: dict[int, asyncio.Future[Answer]] = {}
        self.writer: asyncio.StreamWriter | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.background = BackgroundTask(f"cluster-{name}", self.run_forever, on_death=on_death)
        self.was_up = False

    def open(self) -> None:
        self.background.start()

    async def call(self, call: EmbedCall, payload: memoryview) -> Answer:
        """Sends one call. Returns its answer, an EmbedRefusal `lost` if the Ray client dies.

        Raises Overloaded if MAX_OUTSTANDING calls wait already.
        """
        if self.writer is None:
            return EmbedRefusal(number=0, code="lost", reason="no Ray client"), b""
        if len(self.waiting) >= MAX_OUTSTANDING:
            raise Overloaded(retry_after_seconds=1)
        number = next(self.numbers)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting[number] = answer
        try:
            framing.write(self.writer, message.encode(msgspec.structs.replace(call, number=number)), payload)
            with contextlib.suppress(ConnectionError):  # `on_exit` answers all that wait
                await self.writer.drain()
            return await answer
        except asyncio.CancelledError:
            if self.writer is not None:
                framing.write(self.writer, message.encode(CancelCall(number=number)))
            raise
        finally:
            del self.waiting[number]

    async def run_forever(self) -> None:
        """Runs Ray clients, one after another with backoff, for as long as the gateway serves."""
        num_failures = 0
        told: str | None = None
        while True:
            self.was_up = False
            reason = await self.run_once()
            self.on_status_change(ClusterStatus(is_up=False, detail=reason))
            if reason != told:  # logged once, however often it is retried
                log.warning("ray_client_ended", model=self.name, reason=reason)
            told = None if self.was_up else reason
            num_failures = 1 if self.was_up else num_failures + 1
            await asyncio.sleep(RESTARTS.pause_seconds(num_failures))

    async def run_once(self) -> str:
        """Starts one Ray client and serves it until it ends. Returns why it ended."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            config = msgspec.json.encode(msgspec.structs.replace(self.config, fd=theirs.fileno())).decode()
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                config,
                pass_fds=[theirs.fileno()],
                env=child_environment(**ENVIRONMENT),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            ours.close()
            return f"it cannot be started: {error.strerror}"
        finally:
            theirs.close()  # otherwise the stream would not end with the Ray client
        reader, self.writer = await asyncio.open_unix_connection(sock=ours)
        try:
            return await self.listen(reader)
        finally:
            await self.on_exit()

    async def listen(self, reader: asyncio.StreamReader) -> str:
        reason, patience_seconds = "it died", START_SECONDS
        while True:
            try:
                async with asyncio.timeout(patience_seconds):
                    header, payload = await framing.read(reader)
                heard = message.from_client.decode(header)
            except TimeoutError:
                return f"it said nothing for {patience_seconds:g} seconds"
            except (asyncio.IncompleteReadError, ConnectionError):
                return reason
            except (ValueError, msgspec.MsgspecError) as error:
                return f"it sent what is no message: {type(error).__name__}"
            patience_seconds = self.silent_seconds
            match heard:
                case EmbedResult() | EmbedRefusal():
                    answer = self.waiting.get(heard.number)
                    if answer is not None and not answer.done():  # else its caller has left
                        answer.set_result((heard, payload))
                case ClusterStatus():
                    self.was_up |= heard.is_up
                    self.on_status_change(heard)
                case ReplicaInfo():
                    self.on_replica(heard)
                case Shutdown():
                    reason = heard.reason

    async def on_exit(self) -> None:
        """Answers all waiting calls as `lost`, and waits for the process to end before another one starts."""
        if self.writer is not None:
            self.writer.close()
        self.writer = None
        for answer in self.waiting.values():
            if not answer.done():
                answer.set_result((EmbedRefusal(number=0, code="lost", reason="its Ray client ended"), b""))
        process, self.process = self.process, None
        if process is None:
            return
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def close(self) -> None:
        """Ends the process; waiting calls are answered as `lost`. May be called twice."""
        await self.background.close()
