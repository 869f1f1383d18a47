"""A front's end of its channel to the engine process: calls that are answered, or fail as if the engine were in this process."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from gateway.access.limits.concurrency_queue import OnDisconnect
from gateway.access.limits.local_store import RateState
from gateway.calls.channel import Channel, ChannelClosed, Payload
from gateway.calls.engine_message import CallFailure, from_engine
from gateway.calls.failure import error_of
from gateway.calls.message import CancelCall
from gateway.errors import ClientGone, EngineUnavailable, InternalError

# For what the engine process answers at once. One that is silent for so long hangs, and its requests fail as if it were gone.
ANSWER_SECONDS = 10.0


class EngineFailed(RuntimeError):
    """A call met a defect of the engine process, which has logged it. The client gets a 500."""


class HasState(Protocol):
    """What keeps the state of a caller's limits."""

    state: RateState | None


class EngineClient:
    """One connection to one engine process. After its end it only fails: the next engine process has a client of its own.

    `on_message` gets what is no answer. `on_lost` is called once, after every waiting call has failed.
    """

    def __init__(self, *, on_message: Callable[[Any, bytes], None], on_lost: Callable[[], None]) -> None:
        self.channel = Channel(from_engine, on_message=self.on_channel_message, on_lost=self.on_channel_lost)
        self.on_message = on_message
        self.on_lost = on_lost
        self.exchanges: dict[int, Callable[[Any, bytes], None]] = {}  # calls with several answers; None is the channel's end
        self.is_usable = False  # until its first configuration is in effect

    async def open(self, connection: socket.socket) -> None:
        await self.channel.open(connection)

    def on_channel_message(self, message: Any, payload: bytes) -> None:
        exchange = self.exchanges.get(getattr(message, "number", 0), self.on_message)
        exchange(message, payload)

    def on_channel_lost(self) -> None:
        self.is_usable = False
        for exchange in list(self.exchanges.values()):
            exchange(None, b"")
        self.on_lost()

    @property
    def takes_calls(self) -> bool:
        """False while the engine process is gone, has not told its configuration yet, or has hung with much unread."""
        return self.is_usable and not self.channel.is_full

    def refuse_unusable(self) -> None:
        """Raises EngineUnavailable unless it takes calls."""
        if not self.takes_calls:
            raise EngineUnavailable

    async def call(  # noqa: PLR0913 - named, each of them
        self,
        kind: Callable[..., Any],
        payload: Payload = b"",
        *,
        number: int = 0,
        gone: OnDisconnect | None = None,
        charged: HasState | None = None,
        within_seconds: float | None = None,
        is_early: bool = False,
        **fields: Any,
    ) -> tuple[Any, bytes]:
        """Makes a call of `kind` with these fields, or with `number` a further step of that call.

        Returns the answer, and its payload. Raises the engine process's error; EngineUnavailable if that process is gone, or has
        not answered `within_seconds`; ClientGone if an entry of `gone` is called meanwhile. `charged` gets the state of the
        caller's limits, of an answer or an error that tells it. `is_early` calls may come before the first configuration's Commit.
        """
        if not is_early:
            self.refuse_unusable()
        try:
            number = self.channel.begin_call(number)
            self.channel.send(kind(number=number, **fields), payload)
            if gone is None and within_seconds is None:
                answer, data = await self.channel.answer_to(number)
            else:
                with self.ends_with_client(number, gone):
                    async with asyncio.timeout(within_seconds):
                        answer, data = await self.channel.answer_to(number)
        except (ChannelClosed, TimeoutError):
            raise EngineUnavailable from None
        if charged is not None and answer.state is not None:
            charged.state = answer.state
        if type(answer) is CallFailure:
            raise _error_of(answer)
        return answer, data

    @contextmanager
    def ends_with_client(self, number: int, gone: OnDisconnect | None) -> Iterator[None]:
        """Cancels call `number`, and fails it with ClientGone, if an entry of `gone` is called within the block."""
        if gone is None:
            yield
            return
        waiting = self.channel.waiting[number]

        def leave() -> None:
            if not waiting.done():
                waiting.set_exception(ClientGone())
                self.send(CancelCall(number=number))

        gone.append(leave)
        try:
            yield
        finally:
            gone.remove(leave)

    def send(self, message: Any, payload: Payload = b"", *, is_urgent: bool = True) -> None:
        """Sends what is not answered. Does nothing once the process is gone."""
        self.channel.send(message, payload, is_urgent=is_urgent)

    def close(self) -> None:
        self.channel.close()


def _error_of(failure: CallFailure) -> Exception:
    error = error_of(failure.error, failure.attributes)
    return EngineFailed("the engine process has logged why") if type(error) is InternalError else error
