"""docs/models.md's tables are those of the lists in the code: `make models-matrix` writes them."""

from gateway.testing.families import FAMILIES
from gateway.testing.matrix import HEAD, known_rows, written


def test_the_table_of_families_has_each_of_them_and_no_empty_cell():
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in written("families").splitlines()]
    assert tuple(head) == HEAD
    assert [row[:2] for row in rows] == [[family.name, family.models] for family in FAMILIES]
    assert all(len(row) == len(HEAD) and all(row) for row in rows)


def test_the_rows_of_the_most_used_models_are_those_that_the_command_writes():
    assert written("rows") == known_rows()
