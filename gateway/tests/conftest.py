"""What holds for every test: signals and logging as a process begins with them, one PostgreSQL, a skip without a program."""

import logging
import os
import signal
import threading

import pytest
import structlog

from gateway.testing import postgres as postgres_server
from gateway.testing.programs import NotInstalled

# Networks of tests are small. Two processes of tests and the compilers they start would share the cores with torch's threads, which
# wait by spinning: the rerankers' tests took 67 s of CPU with them and 26 without. Torch reads this once, when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell's background job ignores SIGINT, one under nohup SIGHUP. Children inherit that: what a test sends them would do nothing.
ENDING = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
if threading.current_thread() is threading.main_thread():
    for number, usual in ENDING.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


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


LONGEST_FIRST = ("processes", "engine", "cli", "api")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """xdist's processes take file after file: with the rooms that take minutes last, one of them would work and the others wait."""
    if hasattr(config, "workerinput"):
        items.sort(
            key=lambda item: next((at for at, room in enumerate(LONGEST_FIRST) if room in item.path.parts), len(LONGEST_FIRST))
        )


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
