"""What commands ask of a row of the backend `ray`, alone and as a member of a group."""

import sys

import pytest

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, ModelRow
from gateway.embedding.backend import BoundBackend, Compiled
from gateway.errors import OperatorError

RAY = {"source": "sentence-transformers/all-MiniLM-L6-v2", "address": "127.0.0.1:9"}


@pytest.fixture(params=["m", "m/it"])
def row(request) -> BoundBackend:
    own = ModelRow(name="m", backend="ray", settings=RAY)
    if request.param == "m/it":
        members = [{"backend": "ray", "name": "it", **RAY}, {"backend": "tei", "url": "http://127.0.0.1:9"}]
        own = ModelRow(name="m", backend="group", settings={"members": members})
    config = Config(models=(own,), auth=AuthSettings(mode="none"))
    return Gateway(config).bind(own)


def test_without_ray_it_is_told_before_a_start(row, monkeypatch, request):
    monkeypatch.setitem(sys.modules, "ray", None)
    name = request.node.callspec.params["row"]
    with pytest.raises(OperatorError, match="needs the package ray: pip install") as raised:
        row.check()
    assert str(raised.value).startswith(f"models[{name}]: backend 'ray'")


def test_nothing_is_compiled_here_and_its_cluster_is_whom_it_would_reach(row, request):
    name = request.node.callspec.params["row"]
    made = next(row.compile(lambda *_, **__: None))
    assert made == Compiled(name, "nothing to compile: it is not served on this machine")
    assert row.connections()[0].what == f"models[{name}] on the cluster at 127.0.0.1:9"
    assert not row.is_local()
