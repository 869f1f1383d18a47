"""Names: one meaning a word, and a test found from what it tests."""

import ast
import builtins
import re
from collections import Counter, defaultdict
from pathlib import Path

import gateway

ROOT = Path(gateway.__file__).parent
TESTS = ROOT / "tests"
PROPER = {"OpenAI", "PostgreSQL", "OpenVINO", "SQLite"}  # names that are no errors


def modules() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if TESTS not in path.parents]


def test_a_class_name_is_used_once():
    places = defaultdict(list)
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


BESIDE = {"project", "processes"}  # the house rules; gateways as processes


def test_every_folder_of_tests_is_a_room_or_says_what_else_it_is():
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()} - {"tests"}
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders - rooms <= BESIDE


# Tests whose name is no module's beside them, and why.
OF_NO_MODULE = {
    "api/test_app_starting.py": "gateway/app.py, through the fixtures of this room",
    "api/test_app_stopping.py": "gateway/app.py, through the fixtures of this room",
    "api/test_app_traces.py": "gateway/app.py with gateway/tracing.py, through the fixtures of this room",
    "cli/test_backup.py": "commands of deploy/operations.md, through the fixtures of this room",
    "engine/test_gpu_program.py": "benchmarks/gpu, which is no room",
}


def is_named_for(stem: str, module: str) -> bool:
    return stem == module or stem.startswith(f"{module}_")


def test_a_tests_name_begins_with_a_module_beside_it():
    """`gateway/a/b.py` has test_b.py or test_b_more.py in `gateway/tests/a`; test_a_more.py is for the room as a whole."""
    strays = []
    for path in TESTS.rglob("test_*.py"):
        place = path.relative_to(TESTS)
        if place.parts[0] in BESIDE:
            continue
        room, stem = ROOT / place.parent, path.stem.removeprefix("test_")
        beside = {each.stem for each in room.glob("*.py")} | {each.parent.name for each in room.glob("*/__init__.py")}
        beside = (beside | {room.name}) - {"__init__", "tests"}
        if not any(is_named_for(stem, module) for module in beside):
            strays.append(place.as_posix())
    assert sorted(strays) == sorted(OF_NO_MODULE)


def test_a_test_named_for_a_module_lies_in_that_modules_room():
    names = defaultdict(set)
    for path in modules():
        if path.parent == ROOT / "testing":  # nobody tests the tests' own helpers by name
            continue
        names[path.stem].add(path.parent.relative_to(ROOT))
    strays = []
    for path in TESTS.rglob("test_*.py"):
        if path.parent.name in BESIDE:
            continue
        rooms = names.get(path.stem.removeprefix("test_"))
        if rooms and path.parent.relative_to(TESTS) not in rooms:
            strays.append(str(path.relative_to(TESTS)))
    assert strays == []


def test_a_docstring_raises_only_errors_that_there_are():
    """Renames pass over prose: what a docstring says is raised is a class of ours, of Python's, or one the module imports."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in modules()}
    classes = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    unknown = []
    for path, tree in trees.items():
        imported = {
            alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
                for sentence in re.findall(r"Raises ([^.]+)", ast.get_docstring(node) or ""):
                    told = set(re.findall(r"^[A-Z][a-z]\w+|\b[A-Z][a-z]+[A-Z]\w+", sentence))
                    unknown += [
                        f"{path.relative_to(ROOT)}: {name}" for name in told - classes - imported - set(dir(builtins)) - PROPER
                    ]
    assert unknown == []


def test_a_rooms_map_names_modules_that_there_are():
    """A line of a map is a module's name, two spaces or more, and what it is."""
    strays, num_lines = [], 0
    for path in modules():
        if path.name == "__init__.py":
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            for name in re.findall(r"^(\w+)  +\S", docstring, flags=re.MULTILINE):
                num_lines += 1
                if not ((path.parent / f"{name}.py").exists() or (path.parent / name).is_dir()):
                    strays.append(f"{path.relative_to(ROOT)}: {name}")
    assert strays == []
    assert num_lines > 20


WORD = re.compile(r"\b\w+\b")
SUFFIXES = {".py", ".md", ".toml", ".yml", ".yaml", ".js"}


def is_private_by_use(node: ast.stmt) -> bool:
    """A function without decorators that register it. Struct and error names are read by clients, so classes are left out."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list and node.name != "main"


def test_what_a_module_keeps_to_itself_begins_with_an_underscore():
    folders = [ROOT, ROOT.parent / "benchmarks", ROOT.parent / "compat_tests", ROOT.parent / "deploy", ROOT.parent / "docs"]
    files = [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES and not {"node_modules", "docs_files"} & set(path.parts)
    ]
    num_files = Counter(word for path in files for word in set(WORD.findall(path.read_text(encoding="utf-8"))))
    strays = []
    for path in modules():
        if path.name == "__init__.py" or "testing" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        others = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg | ast.keyword)}
        others |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names = [node.name for node in tree.body if is_private_by_use(node)]
        strays += [
            f"{path.relative_to(ROOT)}: {name}" for name in names if name[0] != "_" and num_files[name] == 1 and name not in others
        ]
    assert strays == []
