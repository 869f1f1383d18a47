"""What a front's callers have used and the engine process was not told yet: one message for all requests of a tenth of a second.

A message for each request is a system call and a wake-up in both processes: 15 microseconds of a request's 260. A front that is
killed loses what it has not told, as every killed process loses what it counted since its last flush.
"""

import asyncio

from gateway.access.keys.key import Caller
from gateway.access.usage.recorder import Counts
from gateway.calls.engine_message import RecordUse
from gateway.processes.engine_client import EngineClient

TELL_SECONDS = 0.1
MAX_UNTOLD = 1000  # of different keys and models; a further one lets all be told at once


class UseBuffer:
    """Used on the event loop only."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client
        self.untold: dict[tuple[str, str], tuple[Caller, Counts]] = {}  # by the caller's public id, and model
        self.timer: asyncio.TimerHandle | None = None

    def add(self, caller: Caller, model: str, counts: Counts) -> None:
        """Counts what was answered. What is of a budget is told at once: the caller's next request may come to another front."""
        key = caller.public_id, model
        if (found := self.untold.get(key)) is not None:
            counts.add(found[1])
        self.untold[key] = caller, counts
        if caller.allowance.token_budget is not None or len(self.untold) > MAX_UNTOLD:
            self.tell()
        elif self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(TELL_SECONDS, self.tell)

    def tell(self) -> None:
        """Sends all of it."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        untold, self.untold = self.untold, {}
        for (_, model), (caller, counts) in untold.items():
            self.client.send(
                RecordUse(
                    caller=caller, model=model, num_inputs=counts.num_inputs, num_tokens=counts.num_tokens,
                    num_cached_tokens=counts.num_cached_tokens, num_requests=counts.num_requests,
                )
            )  # fmt: skip
