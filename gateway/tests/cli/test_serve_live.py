"""A real server process whose configuration changes under it. Its models are never asked for, so none is loaded."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.testing.programs import free_port

ROW = '[[models]]\nname = "{name}"\nsource = "sentence-transformers/all-MiniLM-L6-v2"\nload = "first_use"\n'
BOUND_SECONDS = 60
WORKERS = pytest.mark.parametrize("workers", [1, 2])


def settings(port: int, *names: str, rest: str = "") -> str:
    return f'auth = "none"\n[server]\nport = {port}\n{rest}' + "".join(ROW.format(name=name) for name in names)


def got(port: int, path: str) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
        return json.load(reply)


def served(port: int) -> list[str]:
    try:
        return [model["id"] for model in got(port, "/v1/models")["data"]]
    except (urllib.error.URLError, ConnectionError):
        return []


def until(is_true: Callable[[], bool]) -> None:
    ends = time.monotonic() + BOUND_SECONDS
    while not is_true():
        assert time.monotonic() < ends
        time.sleep(0.05)


@contextmanager
def running(folder: Path, *arguments: str, workers: int = 1, **options) -> Iterator[subprocess.Popen]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", *arguments],
        env={
            **environ,
            "GATEWAY_DATA_DIR": str(folder / "data"),
            "GATEWAY__LOG__FORMAT": "json",
            "GATEWAY__SERVER__WORKERS": str(workers),
        },
        cwd=folder,
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, **options},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@WORKERS
def test_sighup_and_a_changed_file_renew_the_configuration_and_the_flags_stay(tmp_path: Path, workers: int):
    file, port = tmp_path / "gateway.toml", free_port()
    file.write_text(settings(1, "a", rest="watch_config = false\n"))
    with running(tmp_path, "--port", str(port), workers=workers) as process:
        until(lambda: served(port) == ["a"])
        assert got(port, "/readyz") == {"status": "ready"}
        file.write_text(settings(1, "a", "b", rest="watch_config = false\n"))
        process.send_signal(signal.SIGHUP)
        until(lambda: served(port) == ["a", "b"])
        file.write_text(settings(1, "c"))
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        until(lambda: served(port) == ["c"])
        file.write_text(settings(1, "d"))  # watched from now on
        until(lambda: served(port) == ["d"])
        file.write_text("[server]\nprot = 1\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: b'result="refused"} ' in exposition(port))
        assert served(port) == ["d"]
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=BOUND_SECONDS)
    assert process.returncode == 0
    lines = [json.loads(line) for line in told.splitlines()]
    [refused] = [line for line in lines if line["event"] == "configuration_refused"]
    assert "did you mean 'port'?" in refused["reason"]


def exposition(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        return bytes(reply.read())


@WORKERS
def test_a_terminal_that_is_closed_ends_the_server_that_ran_in_it(tmp_path: Path, workers: int):
    port = free_port()
    (tmp_path / "gateway.toml").write_text(settings(port, "a"))
    outer, inner = pty.openpty()

    def in_the_terminal() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(inner), os.O_RDWR))  # the first one a session opens becomes its own

    with running(tmp_path, workers=workers, stdin=inner, stderr=subprocess.DEVNULL, preexec_fn=in_the_terminal) as process:
        os.close(inner)
        until(lambda: served(port) == ["a"])
        os.close(outer)
        assert process.wait(timeout=BOUND_SECONDS) == 0


@pytest.mark.parametrize(("when", "workers"), [("at once", 1), ("when it serves", 1), ("when it serves", 2)])
def test_whoever_reads_the_log_may_go(tmp_path: Path, when: str, workers: int):
    """As `gateway serve 2>&1 | head -1` does, or a shipper that died."""
    file, port = tmp_path / "gateway.toml", free_port()
    file.write_text(settings(port, "a", rest="drain_delay_seconds = 0\n"))
    with running(tmp_path, workers=workers) as process:
        assert process.stderr is not None
        if when == "at once":
            process.stderr.close()
        until(lambda: served(port) == ["a"])
        until(lambda: got(port, "/readyz") == {"status": "ready"})
        if when != "at once":
            process.stderr.close()
        file.write_text(settings(port, "a", "b", rest="drain_delay_seconds = 0\n"))  # which is told too
        until(lambda: served(port) == ["a", "b"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND_SECONDS) == 0


def test_a_log_on_a_full_disk_costs_its_lines_alone(tmp_path: Path):
    file, port = tmp_path / "gateway.toml", free_port()
    file.write_text(settings(port, "a", rest="drain_delay_seconds = 0\n"))
    with Path("/dev/full").open("wb") as full, running(tmp_path, stderr=full) as process:
        until(lambda: served(port) == ["a"])
        until(lambda: got(port, "/readyz") == {"status": "ready"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND_SECONDS) == 0
