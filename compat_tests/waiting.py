"""Waiting for something to become true: looked at again and again, never slept for."""

import time
from collections.abc import Callable

INTERVAL_SECONDS = 0.05


def until(is_true: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Raises TimeoutError naming `what` when it has not become true in time; whatever `is_true` raises ends the wait at once."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} seconds")
        time.sleep(INTERVAL_SECONDS)
