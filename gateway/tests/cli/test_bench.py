"""`gateway bench`: a real gateway measured, and servers that fail in every way."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.app import Gateway
from gateway.cli.load.peer import base_url
from gateway.config import AuthSettings, CacheSettings, Config, ModelRow, Secret, ServerSettings, StoreSettings
from gateway.errors import OperatorError
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.testing.gateway_thread import served
from gateway.tests.cli.conftest import END_SECONDS, Command, Ended, told
from gateway.tests.cli.standin import GONE, Said, error, good, stand_in

KEY = "test-key-of-more-than-24-characters"
SHORT = ("bench", "--seconds", "0.2", "--warmup-seconds", "0", "--inputs", "3", "--clients", "2")
NO_KEY = {"OPENAI_API_KEY": "", "NO_PROXY": "127.0.0.1"}


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def url(tmp_path: Path, embedder: FakeEmbedder) -> Iterator[str]:
    """A gateway with a key that serves the model "m"."""
    (tmp_path / "key").write_text(KEY)
    config = Config(
        server=ServerSettings(port=0),
        auth=AuthSettings(keys=Secret(file=str(tmp_path / "key"))),
        store=StoreSettings(data_dir=str(tmp_path / "served")),
        cache=CacheSettings(max_bytes=0),  # or the embedder would never see a text twice
        models=(ModelRow(name="m", backend="fake"),),
    )
    with served(Gateway(config, backends=[FakeBackend(m=embedder)])) as (host, port):
        yield f"http://{host}:{port}"


def report(ended: Ended) -> dict:
    assert ended.err == ""
    return json.loads(ended.out)


def sent(embedder: FakeEmbedder) -> list[str]:
    return [text for inputs in embedder.prepared for text in inputs.texts]


def test_a_gateway_is_measured_for_programs(gateway: Command, url: str, embedder: FakeEmbedder):
    ended = gateway(*SHORT, "--url", url, "--json", GATEWAY_API_KEY=KEY, **NO_KEY)
    assert ended.code == 0
    found = report(ended)
    assert (found["url"], found["model"], found["clients"], found["inputs_per_request"]) == (f"{url}/v1", "m", 2, 3)
    assert (found["encoding_format"], found["dimensions"], found["interrupted"]) == ("base64", 8, False)
    assert (found["num_errors"], found["errors"]) == (0, {})
    assert 2 <= found["requests"] < len(embedder.prepared)  # the one that tried the server out is not among them
    assert found["requests"] % 2 == 0
    assert found["inputs"] == 3 * found["requests"]
    assert found["tokens"] > 3 * found["inputs"]
    for name in ("requests", "inputs", "tokens"):
        assert found[f"{name}_per_second"] == pytest.approx(found[name] / found["seconds"], rel=0.01)
    latencies = [found["latency_seconds"][name] for name in ("p50", "p95", "p99", "max")]
    assert latencies == sorted(latencies)
    assert len(set(sent(embedder))) == len(sent(embedder))  # no cache could have answered


def test_a_gateway_is_measured_for_people(gateway: Command, url: str):
    ended = gateway(*SHORT, "--url", url, "--warmup-seconds", "0.1", GATEWAY_API_KEY=KEY, **NO_KEY)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{url}/v1  m\nclients: 2  inputs a request: 3  base64  ")
    for row in (r"requests +[\d,]+ +\S+", r"inputs +[\d,]+ +\S+", r"tokens +[\d,]+ +\S+", "errors +0"):
        assert re.search(rf"^{row}$", ended.out, flags=re.MULTILINE), row
    assert re.search(r"^ +p50 +p95 +p99 +max\nlatency, ms( +[\d.,]+){4}$", ended.out, flags=re.MULTILINE)
    assert "wrk" in ended.out
    assert KEY not in ended.out


def test_the_options_of_a_request_are_sent(gateway: Command, url: str, embedder: FakeEmbedder):
    options = ("--model", "m", "--encoding-format", "float", "--dimensions", "4")
    ended = gateway(*SHORT, *options, "--url", url, "--json", GATEWAY_API_KEY=KEY, **NO_KEY)
    found = report(ended)
    assert (ended.code, found["encoding_format"], found["dimensions"], found["num_errors"]) == (0, "float", 4, 0)
    assert {len(inputs.texts) for inputs in embedder.prepared} == {3}


def test_texts_of_ones_own_are_numbered_unless_they_are_to_be_repeated(
    gateway: Command, url: str, embedder: FakeEmbedder, tmp_path: Path
):
    (tmp_path / "texts").write_text("eins\nzwei\n")
    own = (*SHORT, "--url", url, "--texts", str(tmp_path / "texts"))
    assert gateway(*own, GATEWAY_API_KEY=KEY, **NO_KEY).code == 0
    numbered = sent(embedder)
    assert len(set(numbered)) == len(numbered)
    assert {text.rpartition(": ")[2] for text in numbered} == {"eins", "zwei"}
    embedder.prepared.clear()
    assert gateway(*own, "--repeat", GATEWAY_API_KEY=KEY, **NO_KEY).code == 0
    assert set(sent(embedder)) == {"eins", "zwei"}


KEYS = {
    "ours first": (("GATEWAY_API_KEY", "OPENAI_API_KEY"), (), "Bearer of-GATEWAY_API_KEY"),
    "then OpenAI's": (("OPENAI_API_KEY",), (), "Bearer of-OPENAI_API_KEY"),
    "one that is named": (("GATEWAY_API_KEY", "MINE"), ("--api-key-env", "MINE"), "Bearer of-MINE"),
    "none": ((), (), None),
}


@pytest.mark.parametrize(("variables", "options", "header"), KEYS.values(), ids=KEYS)
def test_the_key_comes_from_the_environment(gateway: Command, variables: tuple[str, ...], options: tuple[str, ...], header):
    with stand_in(lambda _, asked: good(asked)) as server:
        environ = {**NO_KEY, **{name: f"of-{name}" for name in variables}}
        ended = gateway(*SHORT, "--seconds", "0.01", *options, "--url", server.url, **environ)
    assert (ended.code, ended.err) == (0, "")
    assert set(server.keys) == {header}
    assert "of-" not in ended.out


def test_errors_are_counted_by_kind_and_not_into_the_speed(gateway: Command):
    others = [
        error(429, "Slow down.", "rate_limit_exceeded"),
        Said(502, b"<html>"),
        GONE,
        Said(200, {"data": []}),
        Said(200, b"<html>"),
    ]
    said = [good, *(lambda _, answer=each: answer for each in others)]
    every = (*SHORT, "--clients", str(2 * len(said)))  # each client has an answer, so each kind comes

    def answer(number: int, asked: dict) -> Said:
        return said[number % len(said)](asked)

    with stand_in(answer) as server:
        ended = gateway(*every, "--url", server.url, "--json", **NO_KEY)
    with stand_in(answer) as other:
        people = gateway(*every, "--url", other.url, **NO_KEY)
    found = report(ended)
    assert ended.code == people.code == 1
    assert set(found["errors"]) == {
        "429 rate_limit_exceeded",
        "502",
        "connection RemoteProtocolError",
        "200 wrong_count",
        "200 not_json",
    }
    assert found["num_errors"] == sum(found["errors"].values())
    assert found["requests"] > 0
    assert (found["inputs"], found["tokens"]) == (3 * found["requests"], 15 * found["requests"])
    assert found["requests"] + found["num_errors"] < len(server.asked)
    assert re.search(r"^  429 rate_limit_exceeded: \d+$", people.out, flags=re.MULTILINE)


def test_a_server_that_answers_nothing_well_has_no_speed(gateway: Command):
    with stand_in(lambda _, __: error(503, "Full.", "server_overloaded")) as server:
        ended = gateway(*SHORT, "--url", server.url, "--json", **NO_KEY)
    found = report(ended)
    assert ended.code == 1
    assert set(found["errors"]) == {"503 server_overloaded"}
    assert (found["requests"], found["requests_per_second"], found["tokens"]) == (0, 0, None)
    assert set(found["latency_seconds"].values()) == {None}


def test_a_server_that_hangs_is_an_error_of_each_client(gateway: Command):
    over = threading.Event()

    def answer(number: int, asked: dict) -> Said:
        if number > 0:
            over.wait(END_SECONDS)
        return good(asked)

    with stand_in(answer) as server:
        ended = gateway(*SHORT, "--timeout-seconds", "1.5", "--url", server.url, "--json", **NO_KEY)
        over.set()
    found = report(ended)
    assert (ended.code, found["requests"], set(found["errors"])) == (1, 0, {"timeout"})
    assert found["errors"]["timeout"] == 2


REFUSED = {
    "a wrong key": (error(401, f"Incorrect API key provided: {KEY}.", "invalid_api_key"), "answered 401 invalid_api_key Incorrect"),
    "no such model": (error(404, "The model `m` does not exist."), "answered 404 some_error The model `m` does not exist."),
    "too many inputs": (Said(422, {"error": "batch size 3 > 2", "error_type": "Validation"}), "answered 422 batch size 3 > 2"),
    "another address": (Said(301, location="http://127.0.0.1:1/v1/embeddings"), "answered 301"),
    "nothing at all": (GONE, "cannot be reached: "),
}


@pytest.mark.parametrize(("said", "words"), REFUSED.values(), ids=REFUSED)
def test_what_would_fail_every_time_is_told_in_one_line_before_the_load(gateway: Command, said: Said, words: str):
    with stand_in(lambda _, __: said) as server:
        ended = gateway(*SHORT, "--url", server.url, GATEWAY_API_KEY=KEY, **NO_KEY)
    assert words in told(ended)
    assert KEY not in ended.err
    assert len(server.asked) == 1


def test_a_gateway_that_wants_a_key_is_told_with_where_one_is_looked_for(gateway: Command, url: str):
    line = told(gateway(*SHORT, "--url", url, **NO_KEY))
    assert line.startswith(f"gateway: {url}/v1/models answered 401 ")
    assert line.endswith("(no key was sent: `gateway bench --help` says where one is looked for)")


def test_a_server_that_lists_no_models_needs_one_by_name(gateway: Command):
    for models in (Said(200, {"data": []}), Said(503), Said(200, b"<html>")):
        with stand_in(lambda _, asked: good(asked), models=models) as server:
            assert told(gateway(*SHORT, "--url", server.url, **NO_KEY)).endswith("names no model: choose one with --model")
    with stand_in(lambda _, asked: good(asked), models=Said(404)) as server:
        assert gateway(*SHORT, "--url", server.url, "--model", "x", **NO_KEY).code == 0
    assert {asked["model"] for asked in server.asked} == {"x"}


def test_an_address_where_nobody_listens_is_told_in_one_line(gateway: Command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    line = told(gateway(*SHORT, "--url", f"http://127.0.0.1:{port}", **NO_KEY))
    assert line.startswith(f"gateway: http://127.0.0.1:{port}/v1/models cannot be reached: ")


UNUSABLE = {
    "no address": (("--url", "localhost:8000"), {}, "--url must be http"),
    "a password": (("--url", f"http://user:{KEY}@localhost"), {}, "--url must be http"),
    "no number": (("--seconds", "nan"), {}, "seconds must be a number"),
    "no such variable": (("--api-key-env", KEY), {}, "the environment variable that --api-key-env names is not set"),
    "no header": ((), {"GATEWAY_API_KEY": f"{KEY}\u00e4"}, "characters that no header can carry"),
    "a name of bytes": (("--model", "\udcff"), {}, "--model must be printable"),
}


@pytest.mark.parametrize(("options", "environ", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_options_are_refused_in_one_line_that_shows_no_key(
    gateway: Command, options: tuple[str, ...], environ: dict[str, str], words: str
):
    line = told(gateway(*SHORT, *options, **NO_KEY, **environ))
    assert words in line
    assert KEY not in line


@pytest.mark.parametrize("option", ["--inputs=2049", "--clients=0", "--seconds=0", "--encoding-format=int8", "--texts=missing"])
def test_options_out_of_range_are_refused(gateway: Command, option: str):
    ended = gateway("bench", option)
    assert (ended.code, ended.out) == (2, "")
    assert f"Invalid value for '{option.partition('=')[0]}'" in ended.err


URLS = {
    "http://h:1": "http://h:1/v1",
    "http://h:1/": "http://h:1/v1",
    "http://h:1/v1": "http://h:1/v1",
    "https://h/v1//": "https://h/v1",
    "http://h/v1/embeddings": "http://h/v1",
    "http://h/openai": "http://h/openai",
    "http://[::1]:8000": "http://[::1]:8000/v1",
}


@pytest.mark.parametrize(("given", "meant"), URLS.items())
def test_an_address_is_an_sdks_base_url_and_gets_v1_where_it_has_no_path(given: str, meant: str):
    assert base_url(given) == meant


@pytest.mark.parametrize("given", ["", "h:1", "ftp://h", "http://", "http://u:p@h", "http://h/?key=x", "http://h/#a", "http://h:x"])
def test_what_is_no_address_is_refused_and_not_repeated(given: str):
    with pytest.raises(OperatorError) as caught:
        base_url(given)
    assert str(caught.value) == "--url must be http[s]://HOST[:PORT][/PATH], without a user, a password or a query"


# A shell's background jobs ignore Ctrl-C, and so would what they start.
AS_IN_FRONT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from gateway.__main__ import main; main()"


def test_ctrl_c_ends_a_run_with_the_table_of_what_there_was(tmp_path: Path):
    enough = threading.Event()

    def answer(number: int, asked: dict) -> Said:
        if number > 10:
            enough.set()
        return good(asked)

    with stand_in(answer) as server:
        command = [sys.executable, "-c", AS_IN_FRONT, *SHORT, "--seconds", "600", "--url", server.url, "--json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env={**os.environ, **NO_KEY}, cwd=tmp_path, **pipes) as process:
            assert enough.wait(END_SECONDS)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=END_SECONDS)
    found = json.loads(out)
    assert (process.returncode, err) == (130, "")
    assert found["interrupted"]
    assert found["requests"] >= 8
    assert 0 < found["seconds"] < 600
