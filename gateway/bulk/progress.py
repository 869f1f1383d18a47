"""Progress: share, rates and time left. On a terminal one line that is updated, elsewhere a new line every LINE_SECONDS."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TextIO

from gateway.bulk.journal import Checkpoint

TERMINAL_SECONDS, LINE_SECONDS = 0.2, 10.0


class Progress:
    """Rates are those of this run. `begin` is where earlier runs ended. `share` gives the part of the input before a checkpoint."""

    def __init__(
        self,
        out: TextIO,
        *,
        begin: Checkpoint,
        share: Callable[[Checkpoint], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.out = out
        self.begin = begin
        self.share = share
        self.begin_share = share(begin)
        self.clock = clock
        self.is_terminal = out.isatty()
        self.started = clock()
        self.shown_at = self.started if not self.is_terminal else float("-inf")
        self.width = 0

    @property
    def seconds(self) -> float:
        return self.clock() - self.started

    def show(self, done: Checkpoint) -> None:
        """Called after every shard. Writes a line if the interval since the last one has passed."""
        now = self.clock()
        if now - self.shown_at < (TERMINAL_SECONDS if self.is_terminal else LINE_SECONDS):
            return
        self.shown_at = now
        line = self.line(done)
        if self.is_terminal:
            self.out.write("\r" + line.ljust(self.width))
            self.width = len(line)
        else:
            self.out.write(line + "\n")
        self.out.flush()

    def end(self) -> None:
        """Clears the terminal's progress line, to make room for the closing line."""
        if self.is_terminal and self.width:
            self.out.write("\r" + " " * self.width + "\r")
            self.out.flush()

    def line(self, done: Checkpoint) -> str:
        share = self.share(done)
        parts = [f"{share:4.0%}", f"{done.row:,} rows", *self.rates(done)]
        if done.num_rejected:
            parts.append(f"{done.num_rejected:,} rejected")
        advance = share - self.begin_share
        if advance > 0:
            left = self.seconds * (1 - share) / advance
            parts.append(f"{timedelta(seconds=round(left))} left")
        return "  ".join(parts)

    def rates(self, done: Checkpoint) -> list[str]:
        """Returns texts and tokens per second, in words."""
        seconds = max(self.seconds, 1e-6)
        texts = (done.num_vectors - self.begin.num_vectors) / seconds
        tokens = (done.num_tokens - self.begin.num_tokens) / seconds
        return [f"{texts:,.0f} texts/s", f"{tokens:,.0f} tokens/s"]
