"""What the gateway's process holds, second by second."""

from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """`at` is in seconds since the soak began."""

    at: float
    resident_mb: float
    num_files: int
    num_threads: int

    def as_row(self) -> dict[str, float]:
        return asdict(self)


def sampled(pid: int, at: float) -> Sample | None:
    """None where the process is just not there."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return Sample(
            at,
            int(status["VmRSS"].split()[0]) / 1000,
            len(list(Path(f"/proc/{pid}/fd").iterdir())),
            int(status["Threads"]),
        )
    except (OSError, KeyError):
        return None


def slope_mb_an_hour(samples: list[Sample]) -> float:
    """Of the straight line through the second half of the samples: the first is warming up."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return 0.0
    mean_at = sum(sample.at for sample in half) / len(half)
    mean_mb = sum(sample.resident_mb for sample in half) / len(half)
    spread = sum((sample.at - mean_at) ** 2 for sample in half)
    rise = sum((sample.at - mean_at) * (sample.resident_mb - mean_mb) for sample in half)
    return 3600 * rise / spread if spread else 0.0
