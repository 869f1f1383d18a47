"""How late the event loop is: what every request waits for, whatever it asks."""

import asyncio

from gateway.metrics import Metrics

INTERVAL_SECONDS = 0.5


async def watch_loop_lag(metrics: Metrics) -> None:
    """For ever: sets the gauge to how much later than it asked a sleep ended, in seconds."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + INTERVAL_SECONDS
        await asyncio.sleep(INTERVAL_SECONDS)
        metrics.process.loop_lag.set(max(0.0, loop.time() - due))
