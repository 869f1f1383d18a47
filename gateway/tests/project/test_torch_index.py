"""Where torch comes from: a small index on loopback, asked by the script of `make setup` and of the image, and by make itself."""

import os
import platform
import re
import subprocess
import sys
import sysconfig
import threading
import urllib.parse
import zipfile
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have one build")

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "deploy/torch_index.py"
VERSION = re.search(r"^torch==(\S+)", (ROOT / "deploy/constraints.txt").read_text(), re.MULTILINE)[1]
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
WHEEL = f"torch-{VERSION}+cpu-{PYTHON}-{PYTHON}-manylinux_2_17_{platform.machine()}.whl"
INFO = f"torch-{VERSION}+cpu.dist-info"


class Index(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def serving(handler):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The address of an index that has torch alone: a page as PyTorch's, and a wheel without code."""
    folder = tmp_path_factory.mktemp("index")
    pages = folder / "whl/cpu/torch"
    pages.mkdir(parents=True)
    with zipfile.ZipFile(pages / WHEEL, "w") as wheel:
        wheel.writestr(f"{INFO}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {VERSION}+cpu\nSummary: without code\n")
        wheel.writestr(f"{INFO}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {'-'.join(WHEEL[:-4].split('-')[2:])}\n")
        wheel.writestr(f"{INFO}/RECORD", "")
    (pages / "index.html").write_text(f'<a href="{urllib.parse.quote(WHEEL)}">{WHEEL}</a>')
    with serving(partial(Index, directory=str(folder))) as address:
        yield address


def chosen(cpu_index, *options, drivers=(), path="/usr/bin:/bin", **environment):
    """pip's options, and the one line of why."""
    run = subprocess.run(
        [sys.executable, SCRIPT, "--cpu-index", cpu_index, *options, "--drivers", *map(str, drivers)],
        env={"PATH": path, **environment}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert run.stderr.count("\n") == 1
    return run.stdout.split(), run.stderr


def test_without_a_driver_the_cpu_build_is_taken(index, tmp_path):
    options, line = chosen(index, drivers=[tmp_path / "no driver"])
    assert options == ["--index-url", index]
    assert line == f"torch: the CPU build, from {index}: no NVIDIA driver is here\n"


def test_with_a_driver_it_is_the_one_of_pypi_but_not_for_a_cpu(index, tmp_path):
    (tmp_path / "version").write_text("NVRM version")
    options, line = chosen(index, drivers=[tmp_path / "version"])
    assert (options, "an NVIDIA driver is here" in line) == ([], True)
    assert chosen(index, "--cpu", drivers=[tmp_path / "version"])[0] == ["--index-url", index]
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert chosen(index, path=f"{tmp_path}:/usr/bin:/bin")[0] == []


class Portal(Index):
    def do_GET(self):
        content = b"<html>Welcome to this network</html>"
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def test_where_it_does_not_answer_it_is_pypi(index):
    with serving(Portal) as portal:
        answers = [chosen(other) for other in (f"{index}/nothing", "http://127.0.0.1:9", "nonsense", portal)]
    assert [options for options, _ in answers] == [[]] * 4
    assert all("from PyPI" in line for _, line in answers)


def test_what_is_asked_for_overrules(index):
    options, line = chosen(index, TORCH_INDEX_URL="https://me:secret@example.com/simple")
    assert options == ["--index-url", "https://me:secret@example.com/simple"]
    assert "secret" not in line
    assert chosen(index, TORCH_INDEX_URL=" ")[0] == ["--index-url", index]


def test_a_version_that_is_not_there_is_not_taken_from_there(index, tmp_path):
    (tmp_path / "constraints.txt").write_text("torch==9.9.9\n")
    assert chosen(index, "--constraints", str(tmp_path / "constraints.txt"))[0] == []


def test_make_installs_what_the_index_has(index, tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "TORCH_"))}
    environment["PIP_CONFIG_FILE"] = os.devnull  # a machine may have wheels of its own
    pip = f"{sys.executable} -m pip --disable-pip-version-check --python {venv}/bin/python install"
    command = ["make", f"VENV={venv}", f"PIP={pip}", f"TORCH_INDEX_OPTIONS=--cpu-index {index} --drivers", f"{venv}/.torch"]
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert made.returncode == 0, made.stderr
    assert f"the CPU build, from {index}" in made.stderr
    installed = Path(sysconfig.get_path("purelib", vars={"base": str(venv)})) / INFO / "METADATA"
    assert "Summary: without code" in installed.read_text()
