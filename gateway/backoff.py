"""Exponential backoff with equal jitter: the pauses between retries.

Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Half of each pause is fixed, so that no
retry is immediate. The other half is random, so that many gateways whose server failed do not retry in step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import random

MAX_DOUBLINGS = 60  # beyond it only `max_seconds` bounds a pause; a float has no more than 1023


@dataclass(frozen=True, slots=True)
class Backoff:
    """The ceiling is `first_seconds` after the first failure and doubles after each further one, up to `max_seconds`.

    It counts nothing: the caller counts the failures. `draw` returns random numbers in [0, 1); tests pass another one.
    """

    first_seconds: float
    max_seconds: float
    draw: Callable[[], float] = random

    def pause_seconds(self, num_failures: int, *, at_least_seconds: float = 0.0) -> float:
        """The pause after `num_failures` in a row, counted from 1: half of the ceiling to all of it.

        `at_least_seconds` is what the server asked for, as by Retry-After: the pause is never shorter, and keeps its jitter.
        """
        half = min(self.first_seconds * 2.0 ** min(max(num_failures, 1) - 1, MAX_DOUBLINGS), self.max_seconds) / 2
        return max(half, at_least_seconds) + self.draw() * half
