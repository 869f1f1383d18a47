"""`gateway models pin`: what is there is compared with what is pinned, and one line of the file is changed."""

import tomllib

import pytest

from gateway.cli.pin import pinned_in, write
from gateway.errors import OperatorError

NEW = "0123456789abcdef01234567.openai-unknown"
WRITTEN = """# ours
[[models]]
name = "one"  # the first
backend = "openai"
url = "http://127.0.0.1:1/v1"

[[models]]
fingerprint = "old"  # since spring
name = "two"
backend = "openai"
url = "http://127.0.0.1:2/v1"
[models.prompts]
query = "q: "
"""


@pytest.mark.parametrize(("place", "name"), [(0, "one"), (1, "two")])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_one_line_is_changed_and_all_else_stays_to_the_letter(place, name, newline):
    before = WRITTEN.replace("\n", newline)
    after = pinned_in(before, place, NEW)
    rows = {row["name"]: row for row in tomllib.loads(after)["models"]}
    assert rows[name]["fingerprint"] == NEW
    changed = [line for line in after.split(newline) if line not in before.split(newline)]
    assert changed == [f'fingerprint = "{NEW}"']
    assert rows["two"]["prompts"] == {"query": "q: "}


def test_a_file_whose_models_are_one_value_is_left_as_it_is(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text('models = [{ name = "one", backend = "openai", url = "http://127.0.0.1:1" }]\n')
    before = file.read_bytes()
    with pytest.raises(OperatorError, match="by hand"):
        write(file, "one", NEW)
    assert file.read_bytes() == before


def test_a_row_at_the_end_without_a_newline_is_pinned_too(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text('[[models]]\nname = "one"')
    write(file, "one", NEW)
    assert tomllib.loads(file.read_text())["models"] == [{"name": "one", "fingerprint": NEW}]
