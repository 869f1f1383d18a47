"""How much one request to an upstream may hold: as configured, as the server says, and as its refusals taught.

What was learned is kept for the servers of a row together, and is forgotten when one comes back that could not be reached, when the
model behind them is another, and after an hour: a limit may be raised there, and whoever then asks for more learns it anew.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

from gateway.log import get_logger
from gateway.metrics import UpstreamMetrics
from gateway.upstream.settings import AnySettings
from gateway.upstream.split import PartSize

Setting = Literal["max_inputs", "max_request_tokens", "max_body_bytes"]  # of the row: each would say what was learned
SETTINGS: tuple[Setting, ...] = ("max_inputs", "max_request_tokens", "max_body_bytes")
LEARNED_SECONDS = 3600.0  # that a limit is kept for

log = get_logger()


class RequestLimits:
    """Used on the event loop alone. `lock` is held by who finds out a limit: others may learn it meanwhile."""

    def __init__(
        self,
        name: str,
        settings: AnySettings,
        *,
        default_max_inputs: int,
        metrics: UpstreamMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.settings = settings
        self.default_max_inputs = default_max_inputs
        self.metrics = metrics
        self.clock = clock
        self.told_max_inputs: int | None = None
        self.is_alone = False  # a text's vector depends on its company there
        self.learned: dict[Setting, int] = {}
        self.learned_at = 0.0
        self.lock = asyncio.Lock()
        metrics.watch_limits({str(setting): partial(self.learned_value, setting) for setting in SETTINGS})

    @property
    def current(self) -> dict[Setting, int]:
        """What was learned and holds."""
        if self.learned and self.clock() - self.learned_at > LEARNED_SECONDS:
            self.forget("it was learned long ago")
        return self.learned

    def learned_value(self, setting: Setting) -> float:
        """For the metrics; 0 where nothing was learned."""
        return float(self.current.get(setting, 0))

    @property
    def most(self) -> PartSize:
        learned, settings = self.current, self.settings
        num_inputs = settings.max_inputs or self.told_max_inputs or self.default_max_inputs
        max_bytes = [each for each in (settings.max_body_bytes, learned.get("max_body_bytes")) if each is not None]
        return PartSize(
            1 if self.is_alone else min(num_inputs, learned.get("max_inputs", num_inputs)),
            min(settings.max_request_tokens, learned.get("max_request_tokens", settings.max_request_tokens)),
            min(max_bytes) if max_bytes else None,
        )

    @property
    def max_inputs(self) -> int:
        return self.most.num_inputs

    def excludes(self, size: PartSize) -> bool:
        """Whether a request of this size, of more than one input, would not be sent."""
        most = self.most
        is_too_large = most.num_bytes is not None and size.num_bytes is not None and size.num_bytes > most.num_bytes
        return size.num_inputs > most.num_inputs or size.num_tokens > most.num_tokens or is_too_large

    def learn(self, setting: Setting, value: int) -> None:
        """`value` was seen to pass, or is what the server's words name; more was refused."""
        value = max(1, min(value, self.current.get(setting, value)))
        if self.learned.get(setting) == value:
            return
        self.learned[setting], self.learned_at = value, self.clock()
        log.warning(
            "upstream_limit_learned", model=self.name, setting=setting, value=value,
            hint=f"its server refuses larger requests, which are split from now on; {setting} = {value} in its row says so at once",
        )  # fmt: skip

    def forget(self, reason: str) -> None:
        if self.learned:
            log.info("upstream_limit_forgotten", model=self.name, reason=reason, **self.learned)
        self.learned = {}

    def take(self, told_max_inputs: int | None, *, is_alone: bool, measured_max_inputs: int | None) -> None:
        """What an address of the row tells, and was seen to take: what holds for one holds for all."""
        if measured_max_inputs is not None:
            self.learn("max_inputs", measured_max_inputs)
        told = [each for each in (self.told_max_inputs, told_max_inputs) if each is not None]
        self.told_max_inputs, self.is_alone = min(told, default=None), self.is_alone or is_alone

    def restart(self, *, told_max_inputs: int | None) -> None:
        """For another model, or a server that was started anew."""
        self.told_max_inputs, self.is_alone = told_max_inputs, False
        self.forget("the model behind it is another")
