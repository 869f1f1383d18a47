"""Retries with exponential backoff, for as many seconds of waiting as `--patience-seconds` allows."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.backoff import Backoff
from gateway.bulk.fault import ERRORS, may_be_inputs, may_pass, message_of
from gateway.errors import GatewayError, OperatorError

RETRIES = Backoff(first_seconds=1.0, max_seconds=30.0)

Answer = TypeVar("Answer")
Sleep = Callable[[float], Awaitable[None]]


class Patience:
    def __init__(self, seconds: float, *, sleep: Sleep = asyncio.sleep) -> None:
        self.seconds = seconds
        self.sleep = sleep

    async def retry(self, attempt: Callable[[], Awaitable[Answer]], *, at_once: bool = False) -> Answer:
        """Retries until it succeeds, or patience ends. `at_once`: an error that an input may have caused is not retried.

        Raises the error itself if an input may have caused it, else OperatorError.
        """
        waited, num_failures = 0.0, 0
        while True:
            try:
                return await attempt()
            except ERRORS as error:
                is_inputs = may_be_inputs(error)
                if is_inputs and (at_once or not may_pass(error)):
                    raise
                if not may_pass(error):
                    raise OperatorError(f"the model cannot go on: {message_of(error)}") from None
                asked = error.retry_after_seconds if isinstance(error, GatewayError) else None
                num_failures += 1
                wait = RETRIES.pause_seconds(num_failures, at_least_seconds=asked or 0)
                if waited + wait > self.seconds:
                    if is_inputs:
                        raise
                    told = f"the model still fails after {waited:.0f} seconds of waiting: {message_of(error)}"
                    raise OperatorError(told) from None
            await self.sleep(wait)
            waited += wait
