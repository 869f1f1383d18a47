"""The unit, as systemd reads it."""

import re
import shutil
from pathlib import Path

from compat_tests.deploy.environment import refusal
from compat_tests.deploy.part import DEPLOY, part, told
from compat_tests.process import COMMAND

UNIT = DEPLOY / "systemd/embeddings-gateway.service"
MAX_EXPOSURE = 2.0  # of 10


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    """It also looks for the program: here that is this environment's."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/embeddings-gateway/bin/gateway", str(COMMAND)))
    assert told(part("systemd-analyze", package="systemd"), "verify", "--man=no", unit) == ""


def test_the_unit_is_hardened(tmp_path: Path) -> None:
    shutil.copy(UNIT, tmp_path)
    shown = told(part("systemd-analyze", package="systemd"), "security", "--offline=true", "--no-pager", tmp_path / UNIT.name)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", shown)
    assert exposure, shown
    assert float(exposure[1]) <= MAX_EXPOSURE


def test_the_gateway_is_given_time_to_finish_and_a_wrong_configuration_is_not_started_again() -> None:
    settings = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#"))
    shown = told(COMMAND, "config", "show", cwd="/")
    drain = sum(float(seconds) for seconds in re.findall(r"^drain_\w+_seconds = (\S+)$", shown, flags=re.MULTILINE))
    assert float(settings["TimeoutStopSec"].removesuffix("s")) >= drain + 10
    assert settings["Restart"] == "on-failure"
    assert "RestartPreventExitStatus" not in settings  # a database that is unavailable at the start is exit code 2 too
    variables = dict(re.findall(r"^Environment=(\w+)=(.*)$", UNIT.read_text(), flags=re.MULTILINE))
    assert refusal(variables) == ""
