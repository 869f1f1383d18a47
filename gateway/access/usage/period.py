"""Durations as people write them, and the hours, days and months by which usage is counted, all in UTC."""

import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, get_args

Span = Literal["hour", "day", "month"]

SPANS: tuple[Span, ...] = get_args(Span)
NUM_CHARS = {"hour": 13, "day": 10, "month": 7}  # of 2026-11-25T08
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
DURATION_PATTERN = rf"^\s*{DURATION.pattern}\s*$"  # for JSON Schema, which cannot bound the duration
MAX_DURATION = timedelta(days=36_500)
HOUR_SECONDS = 3600


def duration(text: str) -> timedelta:
    """Parses `30d`, `12h`, `90s`. Raises ValueError that shows the right form."""
    shape = DURATION.fullmatch(text.strip())
    if shape is None:
        raise ValueError(f"'{text[:40]}' is no duration: write a number and one of s, m, h, d, w, such as 12h or 30d")
    if int(shape[1]) > MAX_DURATION / timedelta(**{UNITS[shape[2]]: 1}):
        raise ValueError(f"'{text[:40]}' is longer than a hundred years")
    return timedelta(**{UNITS[shape[2]]: int(shape[1])})


def hour_of(seconds: float) -> str:
    """Formats a Unix time as `2026-11-25T08`. Its prefixes are the day and the month, so all of them sort and group as text."""
    return name_of(int(seconds // HOUR_SECONDS))


@lru_cache(maxsize=64)
def name_of(hour: int) -> str:
    return datetime.fromtimestamp(HOUR_SECONDS * hour, UTC).strftime("%Y-%m-%dT%H")


def since(text: str, now: float | None = None) -> str:
    """Returns the hour that was a duration before now, as `hour_of` does. Raises ValueError."""
    return hour_of((time.time() if now is None else now) - duration(text).total_seconds())


def period_of(span: Span, hour: str) -> str:
    """The `span` that contains `hour`: a prefix of what `hour_of` returns."""
    return hour[: NUM_CHARS[span]]


def renewed_at(span: Span, seconds: float) -> datetime:
    """The end of the `span` that contains a Unix time."""
    now = datetime.fromtimestamp(seconds, UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if span == "day":
        return midnight + timedelta(days=1)
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
