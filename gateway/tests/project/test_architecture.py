"""docs/architecture.md and CONTRIBUTING.md tell the code as it is: rooms, floors, walls, the core, and the examples of style."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
FILE = re.compile(r"`(gateway/[\w/]+\.py)`")
EXAMPLE = re.compile(r"^ *```python\n *# (\S+)\n(.*?)^ *```", flags=re.MULTILINE | re.DOTALL)
CORE_LINES = (4600, 5200)  # "some 4,900"
OF_NO_ROOM = {"__init__", "__main__", "tests"}


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_room_has_a_line():
    told = {re.split(r"[./]", name)[0] for name in re.findall(r"`gateway/([\w./]+)`", section("Rooms"))}
    paths = [path for path in (ROOT / "gateway").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert told == {path.stem for path in paths} - OF_NO_ROOM


def test_the_floors_are_those_of_the_contract():
    [drawn] = re.findall(r"```\n(.*?)```", section("Floors and walls"), flags=re.DOTALL)
    [layers] = [contract["layers"] for contract in CONTRACTS if contract["type"] == "layers"]
    assert drawn.splitlines() == layers


def test_every_wall_is_told():
    told = re.findall(r"^\* (.+?)\.?$", section("Floors and walls"), flags=re.MULTILINE)
    assert told == [contract["name"] for contract in CONTRACTS if contract["type"] != "layers"]


def test_the_core_is_as_small_as_is_said():
    files = set(FILE.findall(section("The road of a request").partition("| step |")[2].partition("\n\n")[0]))
    num_lines = sum(len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in files)
    assert len(files) > 20
    assert CORE_LINES[0] <= num_lines <= CORE_LINES[1], num_lines


def test_the_page_is_one_page():
    assert len(PAGE.splitlines()) <= 170


@pytest.mark.parametrize(
    ("name", "example"), EXAMPLE.findall(CONTRIBUTING), ids=[name for name, _ in EXAMPLE.findall(CONTRIBUTING)]
)
def test_an_example_of_style_is_from_the_code(name, example):
    code = [line.strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    lines = [line.strip() for line in example.splitlines()]
    assert any(code[start : start + len(lines)] == lines for start in range(len(code)))
    is_cut_docstring = example.count('"""') % 2 == 1
    assert not is_cut_docstring or lines[-1].endswith("."), "it stops in mid-sentence"


def test_there_are_examples_of_style():
    assert len(EXAMPLE.findall(CONTRIBUTING)) >= 4
