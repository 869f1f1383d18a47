"""What the pages for readers say exists: links, commands and settings."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway.cli import cli
from gateway.config import Config

ROOT = Path(__file__).parents[3]
README, CHANGELOG, CONTRIBUTING = ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"
PAGES = [page for page in (README, CHANGELOG, CONTRIBUTING, *sorted((ROOT / "docs").glob("*.md"))) if page.exists()]
BLOCK = re.compile(r"^```sh\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", flags=re.MULTILINE)
SECTIONS = {name: getattr(Config(), name) for name in Config.__struct_fields__ if name != "models"}
SETTING = re.compile(rf"`({'|'.join(SECTIONS)})\.(?!md\b|py\b)([a-z0-9_]+)")
SOURCE = re.compile(r"`((?:gateway|compat_tests|benchmarks|deploy|docs)/[\w./-]*)`")


def commands(page: Path) -> list[list[str]]:
    """The words of every line in an sh block that begins with make or gateway, variables before them and comments left out."""
    lines = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words and Path(words[0]).name in {"make", "gateway"}:
            found.append([Path(words[0]).name, *words[1:]])
    return found


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


COMMANDS = {" ".join(words): words for page in PAGES for words in commands(page)}
MAKE = [words[1:] for words in COMMANDS.values() if words[0] == "make"]
GATEWAY = [words[1:] for words in COMMANDS.values() if words[0] == "gateway"]


def test_the_pages_show_commands_of_both_kinds():
    assert ["run"] in MAKE
    assert ["test"] in MAKE
    assert len(GATEWAY) >= 3


@pytest.mark.parametrize("words", MAKE, ids=" ".join)
def test_a_make_command_is_a_documented_target(words):
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = [word for word in words if "=" not in word]
    assert named
    assert set(named) <= targets


@pytest.mark.parametrize("words", GATEWAY, ids=" ".join)
def test_a_gateway_command_is_known_to_help(words):
    command, path = cli, []
    for word in words:
        if isinstance(command, click.Group) and not word.startswith("-"):
            command, path = command.get_command(click.Context(command), word), [*path, word]
            assert command, words
    help_text = CliRunner().invoke(cli, [*path, "--help"])
    assert help_text.exit_code == 0
    for option in (word.partition("=")[0] for word in words if word.startswith("-")):
        assert re.search(rf"(^|[\s,]){re.escape(option)}\b", help_text.output), option


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_somewhere(page):
    for path, heading in LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), path
        if heading:
            assert heading in map(anchor, HEADING.findall(target.read_text(encoding="utf-8"))), (path, heading)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_setting_that_is_named_is_one(page):
    named = SETTING.findall(page.read_text(encoding="utf-8"))
    assert [f"{section}.{name}" for section, name in named if name not in SECTIONS[section].__struct_fields__] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != CHANGELOG], ids=lambda page: page.name)
def test_a_path_that_is_named_is_there(page):
    assert [path for path in SOURCE.findall(page.read_text(encoding="utf-8")) if not (ROOT / path).exists()] == []
