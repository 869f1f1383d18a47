"""How many tokens a batch may hold, its padding included: as many as configured, until a device finds no memory for them."""

import threading

from gateway.log import get_logger
from gateway.metrics import ModelMetrics

MIN_TOKENS = 128  # a device without memory for so few has none for the model
RECOVERY_BATCHES = 10_000

log = get_logger()


class Budget:
    """Thread-safe: all devices of a model keep to one.

    Halved at once, doubled again after 10,000 batches that fitted: what another process took for a while does not cost throughput
    for ever, and one failed batch in 10,000 is not felt.
    """

    def __init__(self, max_tokens: int, metrics: ModelMetrics) -> None:
        self.first_tokens = max_tokens
        self.max_tokens = max_tokens
        self.num_fitted = 0
        self.metrics = metrics
        self.lock = threading.Lock()
        self.metrics.max_batch_tokens.set(max_tokens)

    def shrink(self, batch_tokens: int) -> None:
        """A batch of so many tokens found no memory: later ones hold half of them at most."""
        with self.lock:
            self.num_fitted = 0
            self.change(min(self.max_tokens, max(MIN_TOKENS, batch_tokens // 2)))
        log.warning("out_of_memory", model=self.metrics.name, batch_tokens=batch_tokens, max_batch_tokens=self.max_tokens)

    def on_success(self) -> None:
        """A batch has run."""
        with self.lock:
            self.num_fitted += 1
            if self.num_fitted >= RECOVERY_BATCHES and self.max_tokens < self.first_tokens:
                self.num_fitted = 0
                self.change(min(self.first_tokens, 2 * self.max_tokens))

    def change(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.metrics.max_batch_tokens.set(max_tokens)
