"""Event loop lag: how late the loop runs a timer. Every request waits that long."""

import asyncio

from gateway.metrics import Metrics

INTERVAL_SECONDS = 0.5


async def watch_loop_lag(metrics: Metrics) -> None:
    """Runs for ever: sets the gauge to how much later a sleep ended than it should have, in seconds."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + INTERVAL_SECONDS
        await asyncio.sleep(INTERVAL_SECONDS)
        metrics.process.loop_lag.set(max(0.0, loop.time() - due))
