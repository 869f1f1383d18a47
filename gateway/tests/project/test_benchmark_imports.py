"""Benchmarks are run by hand, so nothing else notices that a name which they import was moved."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PATHS = sorted((ROOT / "benchmarks").rglob("*.py"))


def imported(path):
    """Pairs of a module of ours and a name that is imported from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in {"gateway", "benchmarks"}:
            yield from ((node.module, each.name) for each in node.names)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_benchmark_imports_of_the_gateway_is_there(path):
    for module, name in imported(path):
        if module.startswith("gateway"):
            found = importlib.import_module(module)
            assert hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}"), f"{module} has no {name}"
        else:
            assert importlib.util.find_spec(module), f"there is no {module}"
