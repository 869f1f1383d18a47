"""The token budget of a batch, padding included: the configured size, lowered when a device runs out of memory."""

import threading

from gateway.log import get_logger
from gateway.metrics import ModelMetrics

MIN_TOKENS = 128  # a device without memory for so few has too little for the model
RECOVERY_BATCHES = 10_000

log = get_logger()


class Budget:
    """Multiplicative decrease and increase: halved when memory runs out, doubled again after 10,000 batches that fitted.

    So memory that another process took for a while does not cost throughput for ever, and one failed batch in 10,000 is not felt.
    Thread-safe: all devices of a model share one budget.
    """

    def __init__(self, max_tokens: int, metrics: ModelMetrics) -> None:
        self.first_tokens = max_tokens
        self.max_tokens = max_tokens
        self.num_fitted = 0
        self.metrics = metrics
        self.lock = threading.Lock()
        self.metrics.max_batch_tokens.set(max_tokens)

    def shrink(self, batch_tokens: int) -> None:
        """Called when a batch of `batch_tokens` ran out of memory: later batches have at most half as many."""
        with self.lock:
            self.num_fitted = 0
            self.change(min(self.max_tokens, max(MIN_TOKENS, batch_tokens // 2)))
        log.warning("out_of_memory", model=self.metrics.name, batch_tokens=batch_tokens, max_batch_tokens=self.max_tokens)

    def on_success(self) -> None:
        """Called when a batch has run."""
        with self.lock:
            self.num_fitted += 1
            if self.num_fitted >= RECOVERY_BATCHES and self.max_tokens < self.first_tokens:
                self.num_fitted = 0
                self.change(min(self.first_tokens, 2 * self.max_tokens))

    def change(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.metrics.max_batch_tokens.set(max_tokens)
