"""The lines of the log, as their reader has them."""

import io
import sys

import structlog

from gateway import log


def test_lines_for_a_console_have_colours_on_a_terminal_alone(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(level="info", line_format="console")
    structlog.get_logger().warning("something_happened", model="m")
    assert "something_happened" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
