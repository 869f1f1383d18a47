"""The lines of the log, as their reader has them."""

import io
import json
import sys
from datetime import UTC, datetime, timedelta

import structlog

from gateway import log


def test_lines_for_a_console_have_colours_on_a_terminal_alone(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(level="info", line_format="console")
    structlog.get_logger().warning("something_happened", model="m")
    assert "something_happened" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_line_has_the_time_in_utc_to_the_microsecond(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(level="info", line_format="json")
    logger, before = log.get_logger(), datetime.now(UTC)
    for number in range(3):
        logger.info("something_happened", number=number)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    times = [datetime.fromisoformat(line["timestamp"]) for line in lines]
    assert [before - timedelta(milliseconds=1), *times] == sorted([*times, before - timedelta(milliseconds=1)])
    assert times[-1] - datetime.now(UTC) <= timedelta(milliseconds=1)
    assert {len(line["timestamp"]) for line in lines} == {len("2026-01-02T03:04:05.678901Z")}
    assert [line["number"] for line in lines] == [0, 1, 2]


def test_a_logger_follows_a_new_configuration(monkeypatch):
    logger = log.get_logger()
    for level, expected in (("info", 1), ("error", 0)):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        log.configure(level=level, line_format="json")
        logger.info("something_happened")
        assert len(stream.getvalue().splitlines()) == expected
