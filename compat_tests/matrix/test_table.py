"""The README's table is the matrix, and the versions it names are those that were tried."""

import pytest

from compat_tests.matrix import table
from compat_tests.matrix.cells import CLIENTS, COLUMNS, Client
from compat_tests.matrix.conftest import ProgramOf


def test_table_in_the_readme_is_current() -> None:
    assert table.in_readme() == table.table(), "run `python -m compat_tests.matrix.table`"


def test_table_has_a_mark_or_a_reason_in_every_cell() -> None:
    _, _, *rows = table.rows()
    assert len(rows) == len(CLIENTS)
    for row in rows:
        marks = [cell.strip() for cell in row.strip("|").split("|")][2:]
        assert len(marks) == len(COLUMNS)
        assert all(mark == "✓" or mark.startswith("no (") for mark in marks)


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_client_that_was_tried_has_the_version_the_table_names(client: Client, program_of: ProgramOf) -> None:
    version = program_of(client).version
    assert version[0].isdigit()
    if client.package:
        assert version == table.pinned_version(client)
