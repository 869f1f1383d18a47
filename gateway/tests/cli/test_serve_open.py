"""`gateway serve --open` opens the page, in the browser that the environment names."""

import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from gateway.cli.browser import page_address

BOUND_SECONDS = 60


@pytest.mark.parametrize(("address", "expected"), [
    ("http://127.0.0.1:8000", "http://127.0.0.1:8000/"), ("http://0.0.0.0:80", "http://127.0.0.1:80/"), ("http://[::]:80", "http://[::1]:80/"),
])  # fmt: skip
def test_the_page_is_where_a_browser_can_go(address, expected):
    assert page_address(address) == expected


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_browser_is_opened_once_the_server_listens_and_keeps_nobody_from_stopping(tmp_path, workers):
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part\nmv {opened}.part {opened}\nexec sleep 50\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
    environ = {**bare, "BROWSER": f"{browser} %s", "GATEWAY_DATA_DIR": str(tmp_path / "data")}
    environ["GATEWAY__SERVER__WORKERS"] = workers
    command = [sys.executable, "-m", "gateway", "serve", "--open", "--port", "0"]
    with subprocess.Popen(
        command, env=environ, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        deadline = time.monotonic() + BOUND_SECONDS
        while not opened.exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND_SECONDS) == 0
        os.killpg(process.pid, signal.SIGKILL)  # the browser, which is still asleep
    assert opened.read_text().startswith("http://127.0.0.1:")


def test_a_page_that_is_off_cannot_be_opened(gateway):
    ended = gateway("serve", "--open", GATEWAY__PAGE__ENABLED="false")
    assert ended.code == 2
    assert "page.enabled" in ended.err
