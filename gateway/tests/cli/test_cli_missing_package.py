"""An image holds what serving needs. A command that needs more says so in one line."""

import subprocess
import sys

HIDES_TOMLI = (
    "import sys; sys.modules['tomli_w'] = None; sys.argv = ['gateway', 'config', 'show']\nfrom gateway.__main__ import main\nmain()"
)


def test_a_command_that_needs_a_missing_package_names_it(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", HIDES_TOMLI], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60
    )
    assert ended.returncode == 2
    assert ended.stderr == "gateway: `gateway config` needs the package tomli_w, which is not installed here\n"
