"""What deploy/ sets for the gateway, held against the gateway itself."""

import os
import subprocess
import tomllib
from functools import cache

from compat_tests.process import COMMAND

PATHS = ("GATEWAY_CONFIG",)  # files that are inside an image or a pod alone


@cache
def example() -> str:
    return subprocess.run([COMMAND, "config", "example"], capture_output=True, text=True, check=True, timeout=60).stdout


def is_known(variable: str) -> bool:
    """Whether this version of the gateway has the setting."""
    setting = variable.rpartition("__")[2].lower()
    return f"\n{setting} =" in example() or f"\n# {setting} =" in example() or not variable.startswith("GATEWAY__")


def refusal(variables: dict[str, str]) -> str:
    """What the gateway says to these environment variables; nothing if all are settings of the right type."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
    ours = {name: value for name, value in variables.items() if name.startswith("GATEWAY") and name not in PATHS}
    ended = subprocess.run(
        [COMMAND, "config", "show"], env={**bare, **ours}, capture_output=True, text=True, check=False, cwd="/", timeout=60
    )
    return ended.stderr


def shown(variables: dict[str, str]) -> dict[str, dict[str, object]]:
    """The configuration in effect with these environment variables."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
    ours = {name: value for name, value in variables.items() if name.startswith("GATEWAY") and name not in PATHS}
    command = [COMMAND, "config", "show"]
    return tomllib.loads(
        subprocess.run(command, env={**bare, **ours}, capture_output=True, text=True, check=True, cwd="/", timeout=60).stdout
    )
