"""Where a server listens: several addresses, both families, `[::1]` as it is printed, Unix sockets; on real sockets."""

import socket
import stat
import urllib.request

import pytest
from click.testing import CliRunner

from gateway.app import Gateway
from gateway.cli.healthcheck import probe
from gateway.cli.keys.create import create, curl
from gateway.config import (
    AuthSettings,
    Config,
    ConfigSource,
    MetricsSettings,
    ModelRow,
    PageSettings,
    ServerSettings,
    StoreSettings,
    listen_addresses,
    load,
)
from gateway.errors import ConfigurationError, OperatorError
from gateway.server.listening import Listening
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.testing.gateway_thread import served

BOUND_SECONDS = 30
REQUEST = b"GET %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def gateway_of(folder, host, **sections):
    config = Config(
        server=ServerSettings(host=host, port=0),
        auth=AuthSettings(mode="none"),
        store=StoreSettings(data_dir=str(folder)),
        models=(ModelRow(name="m", backend="fake"),),
        **sections,
    )
    return Gateway(config, backends=[FakeBackend(m=FakeEmbedder())])


def got(address, path="/livez", *, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(BOUND_SECONDS)
        client.connect(address)
        client.sendall(REQUEST % path.encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


def opened(host, port=0, **options):
    return Listening(listen_addresses(host), port, **options)


@pytest.fixture
def both():
    """A port and the IPv6 of this machine, where there is one."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this system has no sockets of both families")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("[::1]", ["::1"]),
        ("127.0.0.1, [::1]", ["127.0.0.1", "::1"]),
        (["127.0.0.1", "::1", "[::1]"], ["127.0.0.1", "::1"]),
        ("", ["0.0.0.0"]),
        ("unix:/run/gateway.sock", ["unix:/run/gateway.sock"]),
        (["localhost", "unix:a b"], ["localhost", "unix:a b"]),
    ],
)
def test_an_address_is_read_however_it_is_written(said, expected):
    assert [str(address) for address in listen_addresses(said)] == expected


@pytest.mark.parametrize(
    "said", ["http://127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "::1::", "[127.0.0.1]", "unix:", f"unix:{'x' * 108}", []]
)
def test_what_is_no_address_is_refused_at_the_start_by_name(said):
    with pytest.raises(ConfigurationError, match="server: host"):
        load_server(host=said)


def load_server(**settings):
    return load(environ={}, flags={("server", name): value for name, value in settings.items()}).server


@pytest.mark.parametrize("said", ['["127.0.0.1", "::1"]', "127.0.0.1,::1", "127.0.0.1, [::1]"], ids=["JSON", "commas", "brackets"])
def test_the_environment_names_several(said):
    server = load(environ={"GATEWAY__SERVER__HOST": said}).server
    assert [address.host for address in server.addresses] == ["127.0.0.1", "::1"]


@pytest.mark.parametrize("said", ["[::1]", "::1"])
def test_the_environment_and_a_file_know_brackets(said, tmp_path):
    assert load(environ={"GATEWAY__SERVER__HOST": said}).server.addresses[0].host == "::1"
    (tmp_path / "gateway.toml").write_text(f'server.host = ["{said}", "unix:g.sock"]')
    assert [str(each) for each in ConfigSource(tmp_path / "gateway.toml").read().server.addresses] == ["::1", "unix:g.sock"]


def test_several_addresses_are_served_on_one_port(tmp_path, both, capsys):
    gateway = gateway_of(tmp_path, ("127.0.0.1", "[::1]", f"unix:{tmp_path}/g.sock"))
    with served(gateway) as (host, port):
        assert gateway.addresses == [f"http://127.0.0.1:{port}", f"http://[::1]:{port}", f"unix:{tmp_path}/g.sock"]
        assert got((host, port)).startswith(b"HTTP/1.1 200")
        assert got(("::1", port), family=socket.AF_INET6).startswith(b"HTTP/1.1 200")
        assert got(f"{tmp_path}/g.sock", family=socket.AF_UNIX).startswith(b"HTTP/1.1 200")


def test_the_address_of_ipv6_is_printed_as_it_is_read(both):
    listening = opened("::1")
    assert listening.urls == [f"http://[::1]:{listening.port}"]
    listening.close()


def test_every_address_of_ipv6_serves_both_families_and_ipv4_clients_have_their_own_address(tmp_path, both):
    gateway = gateway_of(tmp_path, "::", page=PageSettings(live="loopback"))
    with served(gateway) as (_, port):
        assert got(("127.0.0.1", port), "/page/live").startswith(b"HTTP/1.1 200")  # which a mapped address would not be shown
        assert got(("::1", port), "/page/live", family=socket.AF_INET6).startswith(b"HTTP/1.1 200")


def test_an_ipv4_address_beside_it_says_which_of_ipv4_are_served(both):
    listening = opened("::, 127.0.0.1")
    [ipv6, ipv4] = listening.sockets
    assert ipv6.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    assert ipv4.getsockname() == ("127.0.0.1", ipv6.getsockname()[1])
    listening.close()


def test_one_that_cannot_be_opened_opens_none(both):
    taken = opened("127.0.0.1")
    with pytest.raises(OperatorError, match=rf"cannot listen on 127.0.0.1:{taken.port}: Address already in use"):
        opened("::1, 127.0.0.1", taken.port)
    again = opened("::1", taken.port)
    again.close()
    taken.close()


def test_a_unix_socket_is_for_its_group_and_gone_with_its_server(tmp_path):
    path = tmp_path / "g.sock"
    listening = opened(f"unix:{path}")
    assert listening.urls == [f"unix:{path}"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    listening.close()
    assert not path.exists()
    opened(f"unix:{path}", mode="0666").close()


def test_its_mode_is_as_it_is_set(tmp_path):
    listening = opened(f"unix:{tmp_path}/g.sock", mode="666")
    assert stat.S_IMODE((tmp_path / "g.sock").stat().st_mode) == 0o666
    listening.close()
    with pytest.raises(ConfigurationError, match=r"server\.unix_socket_mode"):
        load_server(unix_socket_mode="rw-rw----")


def test_a_file_that_a_dead_server_left_is_replaced(tmp_path):
    path = tmp_path / "g.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    opened(f"unix:{path}").close()


def test_one_that_is_in_use_and_what_is_no_socket_are_left(tmp_path):
    path, file = tmp_path / "g.sock", tmp_path / "file"
    file.write_text("kept")
    listening = opened(f"unix:{path}")
    with pytest.raises(OperatorError, match=r"unix:.*g\.sock: Address already in use"):
        opened(f"unix:{path}")
    with pytest.raises(OperatorError, match="no socket"):
        opened(f"unix:{file}")
    with pytest.raises(OperatorError, match="No such file"):
        opened(f"unix:{tmp_path}/nowhere/g.sock")
    assert file.read_text() == "kept"
    assert path.exists()
    listening.close()


def test_a_file_that_is_another_server_s_by_now_is_left(tmp_path):
    path = tmp_path / "g.sock"
    first = opened(f"unix:{path}")
    path.unlink()
    second = opened(f"unix:{path}")
    first.close()
    assert path.exists()
    second.close()


def test_a_unix_socket_alone_is_asked_for_its_health_its_page_and_its_metrics(tmp_path):
    free = opened("127.0.0.1")
    free.close()
    settings = {"metrics": MetricsSettings(port=free.port), "page": PageSettings(live="loopback")}
    gateway = gateway_of(tmp_path, f"unix:{tmp_path}/g.sock", **settings)
    with served(gateway):
        assert gateway.address == f"unix:{tmp_path}/g.sock"
        assert probe(gateway.config, "/readyz", BOUND_SECONDS)[0]
        refused = got(f"{tmp_path}/g.sock", "/page/live", family=socket.AF_UNIX)
        assert refused.startswith(b"HTTP/1.1 403")  # nobody knows whose proxy asks
        with urllib.request.urlopen(f"http://127.0.0.1:{free.port}/metrics", timeout=BOUND_SECONDS) as reply:
            assert b"gateway_open_connections" in reply.read()
    assert not (tmp_path / "g.sock").exists()
    assert probe(gateway.config, "/readyz", 1) == (False, f"no answer from unix:{tmp_path}/g.sock: No such file or directory")


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("0.0.0.0", "http://127.0.0.1:8123"),
        ("[::]", "http://[::1]:8123"),
        ("::1", "http://[::1]:8123"),
        ("unix:/run/g, 127.0.0.1", "http://127.0.0.1:8123"),
        ("unix:/run/a b", "--unix-socket '/run/a b' http://localhost"),
    ],
)
def test_the_first_key_s_command_reaches_it(host, place):
    line = curl(Config(server=ServerSettings(host=host, port=8123)), "key")
    assert line.startswith(f"curl {place}/v1/embeddings ")


def test_a_port_that_nobody_knows_yet_is_not_made_up(tmp_path):
    assert curl(Config(server=ServerSettings(port=0)), "key").startswith("curl http://127.0.0.1:PORT/v1/")
    environment = {"GATEWAY_DATA_DIR": str(tmp_path)}
    for port, words in [("0", "PORT is the one that the server takes"), ("9123", "curl http://127.0.0.1:9123/v1/embeddings ")]:
        made = CliRunner().invoke(create, ["--port", port], env=environment)
        assert (made.exit_code, words in made.output) == (0, True)


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("unix:{0}/g, 127.0.0.1", "127.0.0.1")]
)
def test_the_address_of_the_page_is_printed_once_it_is_ready(tmp_path, capsys, host, shown):
    with served(gateway_of(tmp_path, host.format(tmp_path))) as (_, port):
        pass
    assert f"page=http://{shown}:{port}/ " in capsys.readouterr().out.replace("\n", " ")
