"""Reloads the configuration on SIGHUP and after its file changed: one reload at a time, each applied whole or not at all.

A closed terminal sends SIGHUP too. If the gateway has lost its terminal, the signal ends it, as it ends other programs.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from gateway.config import Config, ConfigSource
from gateway.errors import GatewayError, OperatorError
from gateway.log import get_logger
from gateway.metrics import Metrics
from gateway.reload.diff import refuse_fixed

LOOK_SECONDS = 1.0  # between two checks of the file: a stat, in a thread
TERMINAL = "/dev/tty"

log = get_logger()


class ConfigWatcher:
    """`current` returns the configuration in effect; `renew` replaces it, or raises and changes nothing.

    `watch` and `reload` raise nothing.
    """

    def __init__(
        self, source: ConfigSource, *, current: Callable[[], Config], renew: Callable[[Config], Awaitable[None]], metrics: Metrics
    ) -> None:
        self.source = source
        self.current = current
        self.renew = renew
        self.metrics = metrics
        self.is_wanted = asyncio.Event()
        metrics.process.config_loaded_at.set_to_current_time()

    async def watch(self) -> None:
        """Runs until it is cancelled. Signals during a reload cause one more reload after it."""
        while True:
            try:
                await asyncio.wait_for(self.is_wanted.wait(), LOOK_SECONDS)
            except TimeoutError:
                if not (self.current().server.watch_config and await self.has_changed()):
                    continue
            self.is_wanted.clear()
            await self.reload()

    async def has_changed(self) -> bool:
        """Whether the file differs from the one read last, and is the same at a second check: its writer may not have finished."""
        stamp = await asyncio.to_thread(self.source.stamp)
        if stamp == self.source.seen:
            return False
        await asyncio.sleep(LOOK_SECONDS / 4)
        return stamp == await asyncio.to_thread(self.source.stamp)

    async def reload(self) -> None:
        """Reads the configuration and applies it. A failure is one line in the log, and changes nothing."""
        [result] = await asyncio.gather(self.load_config(), return_exceptions=True)
        if isinstance(result, BaseException):
            is_operational = isinstance(result, OperatorError | GatewayError)  # a defect is logged by its place in the code
            reason = {"reason": str(result)} if is_operational else {"exc_info": result}
            log.error("configuration_refused", **reason, hint="nothing has changed: the former one stays in effect")
        is_refused = isinstance(result, BaseException)
        self.metrics.process.config_is_accepted.set(not is_refused)
        self.metrics.process.config_reloads.labels("refused" if is_refused else result).inc()

    async def load_config(self) -> str:
        config = await asyncio.to_thread(self.source.read)
        before = self.current()
        if config == before:
            log.info("configuration_unchanged")
            return "unchanged"
        refuse_fixed(before, config)
        await self.renew(config)
        self.metrics.process.config_loaded_at.set_to_current_time()
        log.info("configuration_loaded", models=[row.name for row in config.models])
        return "loaded"

    @contextmanager
    def on_hang_up(self, stop: Callable[[], None]) -> Iterator[None]:
        """SIGHUP causes a reload, or calls `stop` if the terminal is gone. Only the main thread can handle signals."""
        if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
            yield
            return
        had_terminal = has_terminal()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: stop() if had_terminal and not has_terminal() else self.is_wanted.set())
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)


def has_terminal() -> bool:
    try:
        os.close(os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
