"""What must be true of every file."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = [path for path in sorted((ROOT / "gateway").rglob("*.py")) if "tests" not in path.relative_to(ROOT).parts]
SERVING = [path for path in SOURCES if "testing" not in path.relative_to(ROOT).parts]
READER = ROOT / "gateway" / "config" / "loading.py"
WORKPLACE = b"/" + b"work/"  # in two pieces, as this file is looked at too


def reads_environment(source: str) -> bool:
    """Whether the code names os.environ or os.getenv, in any of the ways there are to import them."""
    names = {"environ", "environb", "getenv", "getenvb"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in names and isinstance(node.value, ast.Name):
            return True
        if isinstance(node, ast.ImportFrom) and node.module == "os" and names & {alias.name for alias in node.names}:
            return True
    return False


WAYS = ["import os\nos.environ['A']", "import os as o\nx = o.getenv('A')", "from os import environ", "from os import getenv as g"]


@pytest.mark.parametrize("source", WAYS)
def test_every_way_to_read_the_environment_is_recognised(source):
    assert reads_environment(source)
    assert not reads_environment("environ = {}\nprint(environ)")


def test_the_environment_is_read_in_one_file_alone():
    assert [path for path in SERVING if reads_environment(path.read_text(encoding="utf-8"))] == [READER]


def kept_files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_the_place_where_it_was_written():
    files = kept_files()
    assert len(files) > 40
    assert [path for path in files if WORKPLACE in path.read_bytes()] == []


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


# Called by click, Ray Serve, uvicorn and http.server, whose methods they are.
CALLED_FROM_OUTSIDE = {
    "list_commands", "get_command", "check_health", "record_autoscaling_stats", "handle_exit", "send_400_response", "log_message",
}  # fmt: skip


def names_in(tree: ast.AST) -> set[str]:
    """What the code names, import lines aside; a decorated function is used by its decorator."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    decorated = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return names | {node.name for node in decorated if any(not is_builtin(each) for each in node.decorator_list)}


def is_builtin(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id in {"property", "classmethod", "staticmethod"}


def test_nothing_is_there_for_the_tests_alone():
    serving = [path for path in SOURCES if "testing" not in path.parts]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in serving}
    named = set().union(*(names_in(tree) for tree in trees.values())) | CALLED_FROM_OUTSIDE
    defined = {
        f"{path.relative_to(ROOT)}: {node.name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("__")
        if node.name not in named
    }
    assert defined == set()
