"""Every client's program, each started when it is first asked."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from compat_tests.matrix.cells import Client
from compat_tests.matrix.four import Four, served
from compat_tests.matrix.program import NODE_FOLDER, Program
from compat_tests.matrix.upstream import missing_infinity

ProgramOf = Callable[[Client], Program]


@pytest.fixture(scope="session")
def program_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProgramOf]:
    folder = tmp_path_factory.mktemp("clients")
    started: dict[str, Program] = {}

    def program(client: Client) -> Program:
        if client.name not in started:
            if client.is_node:
                ask_for_node()
            started[client.name] = Program(client, folder)
        return started[client.name]

    yield program
    for each in started.values():
        each.close()


@pytest.fixture(scope="package")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Four]:
    with served(tmp_path_factory.mktemp("four")) as four:
        yield four


def ask_for_node() -> None:
    """Without Node a user's machine skips, and CI fails."""
    if shutil.which("node") is None:
        gone("Node.js is not installed: the Node clients were not tried")
    if not (NODE_FOLDER / "node_modules").is_dir():
        gone("the Node clients are not installed: `npm ci` in compat_tests/node")


def ask_for_infinity() -> None:
    """As for Node."""
    if missing := missing_infinity():
        gone(missing)


def gone(missing: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)
