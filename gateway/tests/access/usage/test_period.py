"""Durations as people write them, and the periods that usage is counted by."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.usage.period import duration, hour_of, period_of, renewed_at, since


def unix(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", timedelta(seconds=90)), ("5m", timedelta(minutes=5)), ("12h", timedelta(hours=12)), ("30d", timedelta(days=30)),
     ("2w", timedelta(days=14)), ("0s", timedelta()), (" 1d ", timedelta(days=1))],
)  # fmt: skip
def test_a_duration_is_a_number_and_a_unit(text, expected):
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "1.5h", "-1d", "1d12h", "30 d", "30D", "１d", "1" * 30, "36501d", "999999999w"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match=r"is no duration: write|is longer than a hundred years"):
        duration(text)


def test_hours_days_and_months_are_parts_of_one_text():
    hour = hour_of(unix("2026-02-28T23:59:59"))
    assert [period_of(span, hour) for span in ("hour", "day", "month")] == ["2026-02-28T23", "2026-02-28", "2026-02"]
    assert since("2d", unix("2026-03-01T00:30:00")) == "2026-02-27T00"


@pytest.mark.parametrize(
    ("now", "day", "month"),
    [
        ("2026-12-31T23:59:59", "2027-01-01", "2027-01-01"),
        ("2028-02-28T00:00:00", "2028-02-29", "2028-03-01"),
        ("2026-11-25T12:00:00", "2026-11-26", "2026-12-01"),
    ],
)
def test_a_budget_is_renewed_at_midnight_or_on_the_first(now, day, month):
    assert renewed_at("day", unix(now)).isoformat() == f"{day}T00:00:00+00:00"
    assert renewed_at("month", unix(now)).isoformat() == f"{month}T00:00:00+00:00"


@given(st.integers(0, 4_000_000_000))
def test_the_next_period_begins_when_this_one_is_renewed(seconds):
    for span in ("day", "month"):
        end = renewed_at(span, seconds).timestamp()
        assert end > seconds
        assert period_of(span, hour_of(end - 1)) == period_of(span, hour_of(seconds))
        assert period_of(span, hour_of(end)) > period_of(span, hour_of(seconds))
