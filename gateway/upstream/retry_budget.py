"""A retry may help one request and drown an upstream that is short of breath: retries are a tenth of the traffic at most."""

SHARE = 0.1
RESERVE = 10.0  # so that a gateway with little traffic may retry too, and a burst of failures is not multiplied for long


class RetryBudget:
    """Every request puts a `share` of a retry in; every retry takes one out. Never more than `reserve` are saved up."""

    def __init__(self, *, share: float = SHARE, reserve: float = RESERVE) -> None:
        self.share = share
        self.reserve = reserve
        self.saved = reserve

    def earn(self) -> None:
        self.saved = min(self.reserve, self.saved + self.share)

    def spend(self) -> bool:
        """Whether there was a retry left, which is then taken."""
        if self.saved < 1 - 1e-9:  # ten tenths are a little less than one
            return False
        self.saved = max(0.0, self.saved - 1)
        return True
