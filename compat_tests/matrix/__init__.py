"""Every client against every thing it can do: cells.py says which, test_matrix.py tries them, table.py shows it."""
