"""docs/coming-from.md: every setting and command that it names as ours is one."""

import re
from pathlib import Path
from typing import get_type_hints

import click
import pytest

from gateway.build import BUILTIN_BACKENDS
from gateway.cli import cli
from gateway.config import Config, ModelRow

PAGE = (Path(__file__).parents[3] / "docs" / "coming-from.md").read_text(encoding="utf-8")
SECTIONS = {name: set(get_type_hints(type(getattr(Config(), name)))) for name in Config.__struct_fields__ if name != "models"}
ROW = {*get_type_hints(ModelRow), *(name for backend in BUILTIN_BACKENDS for name in get_type_hints(backend.settings))}
KNOWN = {**SECTIONS, "models": ROW - {"settings"}}


def tables():
    """The heading and the rows of each table that has the column `here`."""
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        if "| there | here | note |" in part:
            lines = part.partition("| there | here | note |")[2].partition("\n\n")[0].splitlines()[2:]
            yield part.partition("\n")[0], [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


TABLES = dict(tables())


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_every_server_has_its_table():
    assert list(TABLES) == ["TEI", "infinity", "Ollama", "vLLM", "llama.cpp", "LiteLLM"]
    assert all(len(row) == 3 for rows in TABLES.values() for row in rows)


@pytest.mark.parametrize("server", TABLES)
def test_what_is_named_here_is_there(server):
    for there, here, _ in TABLES[server]:
        for name in names(here):
            if name.startswith("gateway "):
                assert_is_command(name)
            else:
                section, _, setting = name.partition(".")
                assert setting in KNOWN.get(section, ()), (there, name)


@pytest.mark.parametrize("server", TABLES)
def test_what_is_named_in_a_note_is_there(server):
    for there, _, note in TABLES[server]:
        for section, setting in re.findall(rf"`({'|'.join(KNOWN)})\.([a-z_]+)`", note):
            assert setting in KNOWN[section], (there, setting)
        for name in names(note):
            if name.startswith("gateway "):
                assert_is_command(name)


@pytest.mark.parametrize("server", TABLES)
def test_what_has_no_counterpart_says_why(server):
    assert [there for there, here, note in TABLES[server] if not here and not note] == []


def assert_is_command(line):
    command = cli
    options = []
    for word in line.split()[1:]:
        if word.startswith("-"):
            options.append(word)
        else:
            assert isinstance(command, click.Group), line
            command = command.get_command(click.Context(command), word)
            assert command is not None, line
    assert set(options) <= {option for parameter in command.params for option in parameter.opts}, line
