"""Limits of one request to an upstream: as configured, as the server reports, and as learned from its refusals.

All endpoints of a row share the learned limits. They are forgotten when an unreachable endpoint comes back, when the model changes,
and after an hour: the server may have raised a limit. The next larger request then learns it anew.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

from gateway.log import get_logger
from gateway.metrics import UpstreamMetrics
from gateway.upstream.parts import PartSize
from gateway.upstream.settings import AnySettings

Setting = Literal["max_inputs", "max_request_tokens", "max_body_bytes"]  # of the row: setting one saves learning it
SETTINGS: tuple[Setting, ...] = ("max_inputs", "max_request_tokens", "max_body_bytes")
LEARNED_SECONDS = 3600.0  # that a learned limit is kept

log = get_logger()


class RequestLimits:
    """Used only on the event loop. A diagnosis takes `lock` to find out a limit: another may have learned it meanwhile."""

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
        self.reported_max_inputs: int | None = None
        self.is_alone = False  # whether a text's vector depends on its batch there
        self.learned: dict[Setting, int] = {}
        self.learned_at = 0.0
        self.lock = asyncio.Lock()
        metrics.watch_limits({str(setting): partial(self.learned_value, setting) for setting in SETTINGS})

    @property
    def current(self) -> dict[Setting, int]:
        """The learned limits that are still valid."""
        if self.learned and self.clock() - self.learned_at > LEARNED_SECONDS:
            self.forget("it was learned long ago")
        return self.learned

    def learned_value(self, setting: Setting) -> float:
        """For the metrics; 0 if nothing was learned."""
        return float(self.current.get(setting, 0))

    @property
    def most(self) -> PartSize:
        learned, settings = self.current, self.settings
        num_inputs = settings.max_inputs or self.reported_max_inputs or self.default_max_inputs
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
        """Lowers a limit to `value`, which was seen to pass, or which the server's text names; more was refused."""
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

    def take(self, reported_max_inputs: int | None, *, is_alone: bool, measured_max_inputs: int | None) -> None:
        """Takes over what one endpoint reports, and was seen to accept: a limit of one applies to all."""
        if measured_max_inputs is not None:
            self.learn("max_inputs", measured_max_inputs)
        reported = [each for each in (self.reported_max_inputs, reported_max_inputs) if each is not None]
        self.reported_max_inputs, self.is_alone = min(reported, default=None), self.is_alone or is_alone

    def restart(self, *, reported_max_inputs: int | None) -> None:
        """Starts over, for another model or a restarted server."""
        self.reported_max_inputs, self.is_alone = reported_max_inputs, False
        self.forget("the model behind it is another")
