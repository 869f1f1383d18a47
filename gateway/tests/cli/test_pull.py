"""`gateway models pull`, and the sources that commands take: hub ids, folders and short names."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import load
from gateway.testing.hub_server import HubServer
from gateway.testing.small_model import save_small_model
from gateway.tests.cli.conftest import Command, told


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    model = save_small_model(tmp_path_factory.mktemp("small"))
    with HubServer({"some/model": model, "some/gated": model}, gated={"some/gated"}) as server:
        yield server


def test_a_gated_model_is_pulled_with_its_token_and_the_next_command_serves_it(hub: HubServer, gateway: Command, tmp_path: Path):
    environ = hub.environ(tmp_path / "hub")
    pulled = gateway("models", "pull", "some/gated", "--token-env", "TOKEN", **environ, TOKEN=hub.token)
    assert pulled.code == 0, pulled.err
    assert "served: compiled with OpenVINO" in pulled.out
    following = pulled.out.splitlines()[-1].removeprefix("next: ").split()
    assert following == ["gateway", "models", "add", "some/gated", "--token-env", "TOKEN"]
    assert gateway(*following[1:], **environ, HF_HUB_OFFLINE="1").code == 0
    row = load(tmp_path / "gateway.toml", environ={}).models[-1]
    assert row.settings == {"source": "some/gated", "hub_token": {"env": "TOKEN"}}
    shown = gateway("config", "show", **environ, TOKEN=hub.token)
    assert 'env = "TOKEN"' in shown.out
    assert hub.token not in pulled.out + pulled.err + shown.out + shown.err
    assert "next: gateway models build gated" in gateway("models", "pull", "gated", **environ, TOKEN=hub.token).out


def test_a_pull_that_cannot_be_is_one_line(hub: HubServer, gateway: Command, tmp_path: Path):
    environ = hub.environ(tmp_path / "hub")
    assert "is a folder on this machine" in told(gateway("models", "pull", str(tmp_path), **environ))
    assert "neither a folder, nor a hub id" in told(gateway("models", "pull", "modl", **environ))
    offline = gateway("models", "pull", "some/model", **environ, HF_HUB_OFFLINE="1")
    assert (offline.code, offline.out) == (2, "")
    assert "HF_HUB_OFFLINE is set" in offline.err.splitlines()[-1]


def test_serve_and_embed_take_what_models_add_takes(gateway: Command, tmp_path: Path):
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    (tmp_path / "a.txt").write_text("a\n")
    assert "neither a folder, nor a hub id" in told(gateway("serve", "--model", "modl"))
    for command in (["serve", "--model", "static"], ["embed", "a.txt", "-o", "a.npy", "--model", "static"]):
        ended = gateway(*command, **offline, GATEWAY__AUTH="none", GATEWAY__SERVER__PORT="0")
        assert ended.code == 2
        assert "'minishlab/potion-retrieval-32M' are not on this machine" in ended.err.splitlines()[-1]
    own = {"modules.json": json.dumps([{"idx": 0, "name": "0", "path": "", "type": "own.Model"}]), "config.json": "{}"}
    (tmp_path / "own").mkdir()
    for name, content in own.items():
        (tmp_path / "own" / name).write_text(content)
    lines = {told(gateway(*command, "./own")) for command in (["models", "check"], ["serve", "--model"])}
    assert len(lines) == 1
    assert "needs code of its own" in lines.pop()
