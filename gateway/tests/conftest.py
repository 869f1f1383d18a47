"""What holds for every test: the logging a process begins with, one PostgreSQL, and a skip where a program is not installed."""

import logging
import os
import threading

import pytest
import structlog

from gateway.testing import postgres as postgres_server
from gateway.testing.programs import NotInstalled


@pytest.fixture(autouse=True)
def untouched_logging():
    """Whatever the test before has configured."""
    root, hook = logging.getLogger(), threading.excepthook
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level, threading.excepthook = handlers, level, hook
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgres():
    """A server that all tests share, each with a database of its own; who kills it starts it again."""
    yield from postgres_server.running()


def skip_without_program():
    """A test whose program is not installed is skipped; where CI=true it fails."""
    try:
        return (yield)
    except NotInstalled as lacking:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(lacking))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup():
    return (yield from skip_without_program())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    return (yield from skip_without_program())
