"""The README's commands exist."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway.cli import cli

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^```sh\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words of every line in an sh block that begins with make or gateway, variables before them and comments left out."""
    lines = "\n".join(BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words and Path(words[0]).name in {"make", "gateway"}:
            found.append([Path(words[0]).name, *words[1:]])
    return found


MAKE = [words[1:] for words in commands() if words[0] == "make"]
GATEWAY = [words[1:] for words in commands() if words[0] == "gateway"]


def test_the_readme_shows_commands_of_both_kinds():
    assert len(MAKE) + len(GATEWAY) >= 3
    assert ["run"] in MAKE
    assert ["test"] in MAKE


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


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
def test_a_link_of_the_readme_leads_somewhere(link):
    assert (ROOT / link).exists()
