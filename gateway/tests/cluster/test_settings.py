"""What a row may hold, what becomes of it, and what the commands say where there is no cluster."""

import subprocess
import sys

import msgspec
import pytest
from click.testing import CliRunner

from gateway.calls.message import EmbedRefusal
from gateway.cli import cli
from gateway.cluster.application import options, order_of, settings_of
from gateway.cluster.embedder import failure
from gateway.cluster.replica import ReplicaConfig, fit_engine, place_store
from gateway.cluster.settings import RaySettings, Replicas, Resources
from gateway.config import Config, EngineSettings, ModelRow
from gateway.cpus import read_cpus
from gateway.engine.stream_plan import plan_streams
from gateway.errors import ConfigurationError, DeadlinePassed, ModelUnavailable, OperatorError, Overloaded, Unembeddable
from gateway.testing.programs import free_port
from gateway.testing.ray_cluster import HOST
from gateway.tests.cluster.conftest import refuse_or_skip


def row_of(**settings):
    return ModelRow(name="org/small model", backend="ray", settings={"source": "a", **settings})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"replicas": {"min": 3, "max": 2}}, "replicas.min must not be above"),
        ({"replica": {}}, "did you mean 'replicas'"),
        ({"resources": {"num_cpu": 1}}, "num_cpu"),
        ({"surge_percent": 101}, "surge_percent"),
        ({"application": "a/b"}, "application"),
    ],
)
def test_a_wrong_setting_is_named(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        settings_of(row_of(**settings))


def test_a_row_of_another_backend_is_no_application():
    with pytest.raises(ConfigurationError, match="only models of backend 'ray'"):
        settings_of(ModelRow(name="m", settings={"source": "a"}))


def test_a_replica_is_told_what_makes_vectors_and_nothing_of_the_gateways_own():
    order = order_of(row_of(long_input="end", node_data_dir="/shared"), Config())
    assert (order.application, order.settings.long_input, order.data_dir) == ("org-small-model", "end", "/shared")
    assert msgspec.json.decode(msgspec.json.encode(order), type=ReplicaConfig) == order
    assert not {"server", "auth", "store"} & set(order.__struct_fields__)


def test_as_many_replicas_as_the_load_needs_or_a_fixed_number():
    fixed = options(RaySettings(source="a", replicas=Replicas(min=3, max=3)))
    assert fixed["num_replicas"] == 3
    assert "autoscaling_config" not in fixed
    scaled = options(RaySettings(source="a", replicas=Replicas(min=0, max=5), target_backlog_seconds=3))["autoscaling_config"]
    assert (scaled["min_replicas"], scaled["max_replicas"]) == (0, 5)
    assert scaled["policy"]["policy_kwargs"]["target_backlog_seconds"] == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own, against pydantic
def test_ray_itself_accepts_the_options():
    refuse_or_skip()
    from gateway.cluster.application import application_of

    assert application_of(row_of(replicas={"min": 1, "max": 4}), Config())


def test_a_replica_has_as_many_threads_as_cpus_and_leaves_gpus_it_did_not_ask_for():
    assert fit_engine(EngineSettings(), Resources(num_cpus=16)).threads == 16
    assert plan_streams(fit_engine(EngineSettings(), Resources(num_cpus=16)), read_cpus()).streams == 4
    assert fit_engine(EngineSettings(), Resources(num_cpus=0.5)).threads == 1
    assert fit_engine(EngineSettings(threads=3, streams=1), Resources(num_cpus=16)).threads == 3
    settings = RaySettings(source="a").local
    assert place_store(settings, Resources()).device == "cpu"
    assert place_store(settings, Resources(num_gpus=1)).device == "auto"


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (EmbedRefusal(number=1, code="server_overloaded", retry_after_seconds=7), Overloaded),
        (EmbedRefusal(number=1, code="model_unavailable"), ModelUnavailable),
        (EmbedRefusal(number=1, code="lost"), ModelUnavailable),
        (EmbedRefusal(number=1, code="other_vectors"), ModelUnavailable),
        (EmbedRefusal(number=1, code="timeout"), DeadlinePassed),
        (EmbedRefusal(number=1, code="unembeddable_input", where="input[3]", reason="r"), Unembeddable),
        (EmbedRefusal(number=1, code="failed", reason="ValueError"), RuntimeError),
    ],
)
def test_what_a_replica_refuses_is_an_error_of_the_contract(refused, kind):
    error = failure(refused)
    assert type(error) is kind
    if refused.code == "server_overloaded":
        assert error.headers()["Retry-After"] == "7"
    if refused.code == "unembeddable_input":
        assert "input[3]" in error.message


@pytest.mark.parametrize("command", ["deploy", "status", "delete"])
def test_a_command_without_a_cluster_says_so_in_one_line(command, tmp_path):
    refuse_or_skip()
    file = tmp_path / "gateway.toml"
    address = f"{HOST}:{free_port(HOST)}"
    file.write_text(f'[[models]]\nname = "m"\nbackend = "ray"\nsource = "a"\naddress = "{address}"\n')
    result = CliRunner().invoke(cli, ["cluster", command, "m", "--config", str(file)])
    assert isinstance(result.exception, OperatorError)
    assert str(result.exception) == f"the cluster at {address} cannot be reached: Connection refused"


def test_a_configuration_without_a_model_for_a_cluster_is_told_so(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text('[[models]]\nname = "m"\nsource = "a"\n')
    result = CliRunner().invoke(cli, ["cluster", "status", "--config", str(file)])
    assert isinstance(result.exception, OperatorError)
    assert "no model has backend" in str(result.exception)


def test_ray_is_not_imported_by_a_gateway_or_its_commands():
    code = "import sys; import gateway.app, gateway.cli; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_gateway_without_ray_says_what_to_install(tmp_path):
    """In a process where ray cannot be found, whether it is installed or not."""
    file = tmp_path / "gateway.toml"
    store = f'[store]\ndata_dir = "{tmp_path}"\n'
    file.write_text(f'auth = "none"\n{store}[server]\nport = 0\n[[models]]\nname = "m"\nbackend = "ray"\nsource = "a"\n')
    code = (
        "import sys, importlib.util as util; real = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'ray' else real(name, *more)\n"
        f"sys.argv = ['gateway', 'serve', '--config', {str(file)!r}]; from gateway.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "needs the package ray: pip install 'ray[serve]'" in ended.stderr
