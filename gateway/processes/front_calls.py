"""The calls of one front that are under way in the engine process: answers, failures and cancellation, by number."""

from asyncio import Task
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.access.limits.local_store import RateState
from gateway.background import launch, retrieve
from gateway.calls.channel import Channel
from gateway.calls.engine_message import CallFailure
from gateway.calls.failure import failure_of
from gateway.errors import GatewayError, InternalError
from gateway.log import get_logger

log = get_logger()


class FrontCalls:
    """`cancellations` has, for each call that waits, what cancels it. Used on the event loop only."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.answer = channel.send
        self.cancellations: dict[int, Callable[[], object]] = {}

    def launch(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        """Runs a call that may wait in a task, until it has answered, or is cancelled."""

        def forget(task: Task[None]) -> None:
            retrieve(task)
            work.close()  # of a call that was cancelled before it began
            if self.cancellations.get(number) == task.cancel:  # the next step of a call has the same number
                del self.cancellations[number]

        self.cancellations[number] = launch(self.run(number, work), name="call", on_end=forget).cancel

    async def run(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a defect of one call must fail that call alone
            self.fail(number, error)

    def fail(self, number: int, error: BaseException, state: RateState | None = None) -> None:
        """Answers with the error. A defect is logged here, and the client learns nothing of it."""
        if not isinstance(error, GatewayError):
            log.error("internal_error", exc_info=error)
            error = InternalError("")
        name, attributes = failure_of(error)
        self.answer(CallFailure(number=number, error=name, attributes=attributes, state=state))

    def cancel(self, number: int) -> None:
        """Cancels a call, if it still waits."""
        if cancel := self.cancellations.pop(number, None):
            cancel()

    def close(self) -> None:
        """Cancels all calls: the front is gone."""
        for number in list(self.cancellations):
            self.cancel(number)
