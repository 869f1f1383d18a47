"""deploy/operations.md's backup and restore, by its own commands: what was in force then is in force again."""

import os
import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from gateway.testing.programs import find_program
from gateway.tests.cli.conftest import Command
from gateway.tests.cli.test_keys import created

PAGE = Path(__file__).parents[3] / "deploy" / "operations.md"
RUN_SECONDS = 60


def commands(heading: str) -> list[str]:
    """The lines of the first shell block below a heading."""
    below = PAGE.read_text(encoding="utf-8").partition(f"\n### {heading}\n")[2]
    block = re.search(r"^```sh\n(.*?)^```", below, flags=re.DOTALL | re.MULTILINE)
    assert block is not None
    return block[1].splitlines()


def shell(lines: list[str], folder: Path, **environ: str) -> str:
    """What they print. `/backup` is a folder here."""
    script = "set -eu\n" + "\n".join(lines).replace("/backup", str(folder / "backup"))
    environ = {"PATH": os.environ["PATH"], **environ}
    command = ["bash", "-c", script]
    ended = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=RUN_SECONDS, check=True)
    return ended.stdout


def states(gateway: Command, **environ: str) -> list[list[str]]:
    """Name and state of each key."""
    return [line.split()[1:3] for line in gateway("keys", "list", **environ).out.splitlines()[1:]]


def test_sqlite_is_copied_while_it_is_in_use(gateway: Command, tmp_path: Path):
    find_program("sqlite3", hint="sqlite3 is not installed on this machine (Debian: apt-get install sqlite3)")
    (tmp_path / "backup").mkdir()
    created(gateway, "--name", "zeroth")
    database = tmp_path / "data" / "gateway.db"
    with closing(sqlite3.connect(database)) as in_use:  # so that the log is not written back
        in_use.execute("SELECT number FROM revision").fetchone()
        _, public_id = created(gateway, "--name", "first")
        assert database.with_name("gateway.db-wal").stat().st_size > 0
        assert shell(commands("SQLite"), tmp_path, GATEWAY_DATA_DIR=str(database.parent)) == "ok\n"
    before = states(gateway)
    gateway("keys", "revoke", public_id)
    assert states(gateway) == [["zeroth", "active"], ["first", "revoked"]]
    for path in database.parent.glob("gateway.db*"):
        path.unlink()
    copy = tmp_path / "backup" / "gateway.db"
    assert copy.stat().st_mode & 0o777 == 0o600
    copy.rename(database)
    assert states(gateway) == before == [["zeroth", "active"], ["first", "active"]]


def test_postgresql_is_dumped_and_restored(gateway: Command, tmp_path: Path, postgres):
    url = postgres.new_database()
    environ = {"GATEWAY__STORE__DATABASE_URL": url}
    _, public_id = created(gateway, "--name", "first", **environ)
    dump, restore = commands("PostgreSQL")
    path = f"{postgres.programs}:{os.environ['PATH']}"
    shell([dump], tmp_path, DATABASE_URL=url, PATH=path)
    gateway("keys", "revoke", public_id, **environ)
    created(gateway, "--name", "later", **environ)
    assert states(gateway, **environ) == [["first", "revoked"], ["later", "active"]]
    shell([restore], tmp_path, DATABASE_URL=url, PATH=path)
    assert states(gateway, **environ) == [["first", "active"]]
