"""deploy/README.md tells of every file under deploy/ what proved it; the pages for operators name what there is."""

import re
import subprocess
from pathlib import Path

import pytest

from gateway.config import Config

ROOT = Path(__file__).parents[3]
README = ROOT / "deploy" / "README.md"
OPERATIONS = ROOT / "deploy" / "operations.md"
PAGES = (README, OPERATIONS, ROOT / "SECURITY.md")
TEST = re.compile(r"(test_\w+)\.py")


def rows():
    """Each file's row of the table: the command that proved it, and what it printed."""
    lines = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {name.strip("` |"): (command, printed) for name, command, printed in cells}


def files():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "deploy"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return {name.removeprefix("deploy/") for name in listed.stdout.splitlines() if (ROOT / name).exists()} - {"README.md"}


def test_the_table_has_a_row_for_every_file_and_no_other():
    assert set(rows()) == files()
    assert len(rows()) > 30


def test_every_row_has_a_command_and_what_it_printed():
    for name, (command, printed) in rows().items():
        assert command.count("`") >= 2, name
        assert printed, name


def test_every_test_that_a_row_names_is_there():
    named = {match for command, _ in rows().values() for match in TEST.findall(command)}
    there = {path.stem for folder in ("compat_tests", "gateway/tests") for path in (ROOT / folder).rglob("test_*.py")}
    assert named <= there
    assert named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_of_the_document_leads_somewhere(page):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_is_one(page):
    sections = {name: getattr(Config(), name) for name in Config.__struct_fields__ if name != "models"}
    named = re.findall(rf"`({'|'.join(sections)})\.(?!md\b)([a-z0-9_]+)", page.read_text(encoding="utf-8"))
    assert named
    assert [f"{section}.{name}" for section, name in named if name not in sections[section].__struct_fields__] == []


def test_the_operations_page_has_a_heading_for_every_alert_and_no_other():
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"^ +- alert: (\w+)$", rules, flags=re.MULTILINE)
    assert len(alerts) == rules.count("alert:") > 10
    assert re.findall(r"^### (Gateway\w+)$", OPERATIONS.read_text(encoding="utf-8"), flags=re.MULTILINE) == alerts
