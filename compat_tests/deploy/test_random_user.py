"""The gateway as a user that nobody made: a number, group 0, no home, no line in the user database, as on OpenShift."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.deploy.part import missing, part
from compat_tests.process import COMMAND, COMPILED, Gateway
from compat_tests.texts import MODEL

UID = 123_456
HIDDEN = Path("/root")  # where a Python may live that no other user can reach
# In a mount namespace of its own, folders that are hidden from other users show the Python that is in them, and nothing else.
AS_NOBODY = """
set -e
python=$(readlink -f "$1"); root={hidden}
case "$python" in $root/*)
    inside=${{python#$root/}}; folder=$root/${{inside%%/*}}
    mkdir -p {folder}/python; mount --bind "$folder" {folder}/python
    mount -t tmpfs -o mode=755 tmpfs $root; mkdir "$folder"; mount --bind {folder}/python "$folder"
esac
shift
exec setpriv --reuid={uid} --regid=0 --clear-groups env -u HOME -u USER -u LOGNAME -u XDG_DATA_HOME "$@"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Readable by all, with a data folder as the image has it: of another user, and of group 0, who may write."""
    made = Path(tempfile.mkdtemp(prefix="random-user-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def nobody(folder: Path) -> list[str | Path]:
    """What runs a command as that user."""
    if sys.platform != "linux" or os.geteuid() != 0:
        missing("only root can become a user that nobody made")
    setpriv, unshare = part("setpriv", package="util-linux"), part("unshare", package="util-linux")
    assert setpriv
    script = folder / "as-nobody.sh"
    script.write_text(AS_NOBODY.format(folder=folder, uid=UID, hidden=HIDDEN))
    command = [unshare, "--mount", "sh", script, COMMAND.parent / "python"]
    tried = subprocess.run([*command, COMMAND, "--help"], capture_output=True, text=True, check=False, timeout=60)
    if tried.returncode:
        missing(f"no mount namespace can be made here: {tried.stderr.strip()}")
    return command


def test_a_random_user_of_group_0_is_served_from_a_folder_of_that_group(folder: Path, nobody: list[str | Path]) -> None:
    gateway = Gateway(folder, command=[*nobody, COMMAND], GATEWAY_API_KEYS=ENVIRONMENT_KEY)
    COMPILED.chmod(0o755)
    os.chown(folder / "data", 10_001, 0)
    (folder / "data").chmod(0o770)
    _, key = gateway.create_key("of a random user")
    assert f"cli:{UID}" in gateway.run("keys", "audit")
    with running(gateway):
        with OpenAI(base_url=gateway.base_url, api_key=key) as client:
            assert len(client.embeddings.create(model=MODEL, input="hello").data) == 1
        gateway.stop()
    assert "Traceback" not in gateway.log
    [database] = (folder / "data").glob("gateway.db")
    assert (database.stat().st_uid, stat.S_IMODE(database.stat().st_mode)) == (UID, 0o600)


@pytest.mark.parametrize("home", [None, "/", "/nonexistent"])
def test_without_a_data_folder_it_says_what_is_missing(folder: Path, nobody: list[str | Path], home: str | None) -> None:
    words = ["env", *([f"HOME={home}"] if home else []), "GATEWAY_DATA_DIR=", "GATEWAY__STORE__DATA_DIR=", COMMAND, "keys", "list"]
    ended = subprocess.run([*nobody, *words], capture_output=True, text=True, check=False, timeout=60, cwd="/")
    assert ended.returncode == 2
    assert ended.stderr.startswith("gateway: ")
    assert len(ended.stderr.splitlines()) == 1
    assert ("GATEWAY_DATA_DIR" if home is None else "cannot be written") in ended.stderr
