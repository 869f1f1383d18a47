"""The bounded ladder of batch shapes.

OpenVINO's CPU plugin keeps what it compiled for every shape it ever saw: 3,000 free shapes took a process from 116 MB to
1.85 GB, and each new one costs a compilation.
Lengths to multiples of 8 and rows to powers of two are few enough to stay, and faster.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shapes:
    """`length_step` 1 and `is_ladder` false leave batches as they are, which is what torch likes."""

    length_step: int = 1
    is_ladder: bool = False
    max_length: int = 1 << 20

    def length(self, num_tokens: int) -> int:
        """The padded length of a batch whose longest row has `num_tokens`."""
        return min(-(-num_tokens // self.length_step) * self.length_step, max(self.max_length, num_tokens))

    def rows(self, num_jobs: int) -> int:
        """The padded number of rows."""
        return 1 << (num_jobs - 1).bit_length() if self.is_ladder else num_jobs

    def worth(self, num_jobs: int) -> int:
        """How many of so many jobs to run at once: a rung three quarters full is padded, else the one below."""
        if not self.is_ladder or self.rows(num_jobs) * 3 <= num_jobs * 4:
            return num_jobs
        return self.rows(num_jobs) // 2


FREE = Shapes()
