"""A limit as anybody would explain it, in exact fractions and told anew from the beginning each time: slow, and obviously right."""

from fractions import Fraction

from gateway.access.limits.gcra import MINUTE, Rate


class Bucket:
    """It holds `burst` units and begins full; each microsecond adds a share of a unit. A clock set back adds nothing.

    More than it can hold is lent at once, as long as no more than `max_cost` is missing afterwards.
    """

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.history: list[tuple[int, int]] = [(0, 0)]  # when, and how much was taken

    @property
    def lowest(self) -> Fraction:
        return Fraction(self.rate.burst - self.rate.max_cost)

    def level(self, now: int) -> Fraction:
        level, before = Fraction(self.rate.burst), self.history[0][0]
        for at, taken in [*self.history, (now, 0)]:
            if at > before:
                level += Fraction((at - before) * self.rate.per_minute, MINUTE)
            level = max(self.lowest, min(level, Fraction(self.rate.burst)) - taken)
            level = min(level, Fraction(self.rate.burst))
            before = at
        self.history.append((now, 0))  # it was looked at: a clock that goes back goes on from here
        return level

    def until(self, missing: Fraction) -> int:
        """Microseconds until so much has been added."""
        whole = missing * MINUTE / self.rate.per_minute
        return -(-whole.numerator // whole.denominator)

    def wait(self, now: int, cost: int) -> int:
        after = self.level(now) - cost
        lowest = Fraction(0) if cost <= self.rate.burst else self.lowest
        return self.until(lowest - after) if cost and after < lowest else 0

    def charge(self, now: int, cost: int) -> None:
        self.history.append((now, cost))
