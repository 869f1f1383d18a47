"""Shape bucketing: batch lengths are padded up, and numbers of rows cut down, to a bounded ladder of shapes.

OpenVINO's CPU plugin caches what it compiled for every shape it ever saw: 3,000 free shapes took a process from 116 MB to 1.85 GB,
and each new shape costs a compilation. Lengths in multiples of 8 and rows in 1, 2, 3, 4, 6, 8, 12, 16 … are few enough to cache.
Above 512 tokens a length is rounded up to one of 16 between a power of two and the next, with at most a 16th of padding: 64 lengths
up to 8,192, where multiples of 8 would be 960.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

MAX_FINE_LENGTH = 512  # up to it lengths are multiples of `length_step` alone
STEPS_BITS = 4  # of the 16 lengths between two powers of two
RUNGS = sorted({1} | {1 << power for power in range(1, 13)} | {3 << power for power in range(12)})


@dataclass(frozen=True, slots=True)
class Shapes:
    """The allowed shapes. `length_step` 1 and `is_ladder` false leave batches as they are, which suits torch.

    Without `is_padded`, texts of any lengths share a batch, and none is padded.
    """

    length_step: int = 1
    is_ladder: bool = False
    max_length: int = 1 << 20
    is_padded: bool = True

    def length(self, num_tokens: int) -> int:
        """The padded length of a batch whose longest row has `num_tokens`."""
        step = self.step(num_tokens)
        return min(-(-num_tokens // step) * step, max(self.max_length, num_tokens))

    def step(self, num_tokens: int) -> int:
        """Between the padded lengths about this one."""
        if num_tokens <= MAX_FINE_LENGTH or not self.is_ladder:
            return self.length_step
        return max(self.length_step, 1 << ((num_tokens - 1).bit_length() - 1 - STEPS_BITS))

    def batch_tokens(self, lengths: Sequence[int]) -> int:
        """The tokens of a batch of rows of these lengths, padding included."""
        return len(lengths) * self.length(max(lengths)) if self.is_padded else sum(lengths)

    def shortest(self, length: int) -> int:
        """The fewest tokens whose padded length is this one; 0 where nothing is padded."""
        if not self.is_padded:
            return 0
        step = self.step(length)
        return length if length > self.max_length else (length - 1) // step * step + 1

    def rows(self, num_jobs: int) -> int:
        """How many of `num_jobs` to run at once: the highest rung of the ladder they fill. The others wait for the next batch."""
        return RUNGS[bisect_right(RUNGS, num_jobs) - 1] if self.is_ladder else num_jobs


FREE = Shapes()
UNPADDED = Shapes(is_padded=False)
