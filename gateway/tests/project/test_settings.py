"""Every setting is documented, by the code itself; what is told twice is told alike."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

from gateway.build import BUILTIN_BACKENDS
from gateway.config import Config, LongInput, Task
from gateway.config.loading import SECTIONS
from gateway.wire import request
from gateway.wire.foreign_fields import FIELDS
from gateway.wire.request import EncodingFormat

ROOT = Path(__file__).parents[3]
STRUCTS = [*SECTIONS.values(), *(backend.settings for backend in BUILTIN_BACKENDS)]


@cache
def example() -> str:
    command = [sys.executable, "-m", "gateway", "config", "example"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


def test_the_file_of_all_settings_is_what_the_code_says():
    assert (ROOT / "deploy" / "gateway.toml").read_text(encoding="utf-8") == example()


@pytest.mark.parametrize("struct", STRUCTS, ids=[struct.__name__ for struct in STRUCTS])
def test_every_setting_says_what_it_does(struct):
    text = example()
    told = " ".join(line.removeprefix("# ") for line in text.splitlines())
    for name, hint in get_type_hints(struct, include_extras=True).items():
        (description,) = [part.description for part in get_args(hint) if isinstance(part, msgspec.Meta) and part.description]
        assert description.endswith((".", ".)")), name
        assert description in told
        assert re.search(rf"^(# )?{name} =", text, flags=re.MULTILINE), name


def test_every_section_is_in_the_file_of_all_settings():
    headings = {line.strip("[]") for line in example().splitlines() if line.startswith("[")}
    assert headings == {field.name for field in msgspec.structs.fields(Config)}


@pytest.mark.parametrize("choices", [LongInput, Task, EncodingFormat])
def test_choices_are_written_once(choices):
    """As a list in any form: `("a", "b")`, `Literal["a", "b"]`, `{"a", "b"}`."""
    listed = re.compile(r",\s*".join(f'"{choice}"' for choice in get_args(choices)))
    paths = [path for path in (ROOT / "gateway").rglob("*.py") if not {"tests", "testing"} & set(path.relative_to(ROOT).parts)]
    assert len([path for path in paths if listed.search(path.read_text(encoding="utf-8"))]) == 1


def test_every_field_of_a_body_has_words_for_its_type():
    assert {field.name for field in msgspec.structs.fields(request.EmbeddingsBody)} - FIELDS.keys() == set(request.EXPECTED)
