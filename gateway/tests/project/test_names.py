"""Names: one meaning a word, and a test found from what it tests."""

import ast
from collections import defaultdict
from pathlib import Path

import gateway

ROOT = Path(gateway.__file__).parent
TESTS = ROOT / "tests"


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


def test_a_test_named_for_a_module_lies_in_that_modules_room():
    names = defaultdict(set)
    for path in modules():
        names[path.stem].add(path.parent.relative_to(ROOT))
    strays = []
    for path in TESTS.rglob("test_*.py"):
        if path.parent.name in BESIDE:
            continue
        rooms = names.get(path.stem.removeprefix("test_"))
        if rooms and path.parent.relative_to(TESTS) not in rooms:
            strays.append(str(path.relative_to(TESTS)))
    assert strays == []
