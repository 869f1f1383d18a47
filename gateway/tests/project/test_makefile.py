"""The Makefile's targets, and what stands on them."""

import re
import subprocess
from pathlib import Path

from gateway.tests import fast

ROOT = Path(__file__).parents[3]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def make(*arguments: str) -> str:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_help_shows_every_target_for_people():
    [phony] = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    shown = re.findall(r"^  make ([a-z-]+) ", make("help"), flags=re.MULTILINE)
    assert set(shown) == set(phony.split()) - {"compat-setup"}  # a part of `make test`


def test_one_rooms_tests_are_run_by_its_name():
    commands = make("-n", "test", "ROOM=access/keys").splitlines()
    assert [line for line in commands if "pytest" in line] == [".venv/bin/python -m pytest -m '' gateway/tests/access/keys"]


def test_what_make_test_fast_leaves_out_is_there():
    assert [name for name in fast.LONG if not (fast.TESTS / name).is_file()] == []


def test_a_commit_is_checked_as_make_check_does():
    assert "entry: make check\n" in (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
