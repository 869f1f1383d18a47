"""Retry budget: retries are a tenth of the traffic at most. One retry may help a request, but many drown an overloaded upstream."""

SHARE = 0.1
RESERVE = 10.0  # so that a gateway with little traffic may retry too, and a burst of failures is not multiplied for long


class RetryBudget:
    """A token bucket: every request adds `share` of a retry, every retry takes one. At most `reserve` retries are saved up."""

    def __init__(self, *, share: float = SHARE, reserve: float = RESERVE) -> None:
        self.share = share
        self.reserve = reserve
        self.saved = reserve

    def earn(self) -> None:
        self.saved = min(self.reserve, self.saved + self.share)

    def spend(self) -> bool:
        """Takes a retry. Returns whether there was one left."""
        if self.saved < 1 - 1e-9:  # ten tenths are a little less than one
            return False
        self.saved = max(0.0, self.saved - 1)
        return True
