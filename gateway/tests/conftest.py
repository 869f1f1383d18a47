"""What holds for every test: logging as a process begins with it, whatever the test before has configured."""

import logging
import threading

import pytest
import structlog

from gateway.testing import postgres as postgres_server


@pytest.fixture(autouse=True)
def untouched_logging():
    root, hook = logging.getLogger(), threading.excepthook
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level, threading.excepthook = handlers, level, hook
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgres():
    """A server that all tests share, each with a database of its own; who kills it starts it again."""
    yield from postgres_server.running()
