"""The gateway as its users run it: a command, an environment, a data folder, a log."""

import atexit
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.error import HTTPError, URLError

from compat_tests.waiting import until

ROOT = Path(__file__).parent.parent
COMMAND = Path(os.environ.get("GATEWAY_COMMAND", ROOT / ".venv/bin/gateway")).absolute()
WORKERS = os.environ.get("COMPAT_WORKERS", "1")  # `server.workers` of the gateways: from 2 on each is several processes
COMPILED = Path(tempfile.mkdtemp(prefix="compat-models-"))
atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
# In float32 the vectors are sentence-transformers' own to 1e-5, which is what the tests hold them to.
FLOAT32_ROW = {
    "name": "all-MiniLM-L6-v2",
    "aliases": ["sentence-transformers/all-MiniLM-L6-v2", "text-embedding-3-small"],
    "source": "sentence-transformers/all-MiniLM-L6-v2",
    "download": False,
    "precision": "float32",
}
START_SECONDS = 120  # torch is imported and the weights are read, on machines that do other things too
STOP_SECONDS = 60
OWN_KEY = re.compile(r"sk-gw-([0-9A-Za-z]+)-[0-9A-Za-z]+")


class Gateway:
    """One gateway process on a free port of 127.0.0.1; `folder` holds data and log, `settings` are environment variables."""

    def __init__(self, folder: Path, *, command: Sequence[str | Path] = (COMMAND,), **settings: str) -> None:
        self.folder = folder
        self.command = command
        self.log_file = folder / "gateway.log"
        self.port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")},
            "GATEWAY_DATA_DIR": str(folder / "data"),
            "HF_HUB_OFFLINE": "1",
            "GATEWAY__MODELS": json.dumps([FLOAT32_ROW]),
            "GATEWAY__SERVER__WORKERS": WORKERS,
            **settings,
        }
        # A model is compiled once in a session, by the gateway that is started first.
        COMPILED.mkdir(parents=True, exist_ok=True)
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data/models").symlink_to(COMPILED)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client is pointed at."""
        return f"{self.origin}/v1"

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def run(self, *arguments: str) -> str:
        """What `gateway …` prints, run beside the server as an operator would."""
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"gateway {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}"
        return done.stdout

    def create_key(self, name: str, *terms: str) -> tuple[str, str]:
        """A new key of the store, with terms such as "--admin": its public id, and the key in full."""
        shown = OWN_KEY.search(self.run("keys", "create", "--name", name, *terms))
        assert shown, "gateway keys create showed no key"
        return shown[1], shown[0]

    def start(self) -> None:
        """Returns at once; `wait_until_ready` waits."""
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*self.command, "serve", "--host", "127.0.0.1", "--port", str(self.port)],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        until(self.is_ready, seconds=START_SECONDS, what="the gateway's /readyz")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, f"the gateway ended with exit code {self.process.returncode}\n{self.log}"
        return self.status_of("/readyz") == 200

    def status_of(self, path: str, *, key: str | None = None) -> int | None:
        """None while nobody listens."""
        asked = urllib.request.Request(f"{self.origin}{path}", headers={"api-key": key} if key else {})
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code
        except (URLError, ConnectionError):
            return None

    def metric(self, name: str, *, having: str = "") -> float:
        """The sum of a metric over its labels, or over those that hold `having`, as /metrics shows it."""
        with urllib.request.urlopen(f"{self.origin}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}[ {{]", line) and having in line)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(timeout=STOP_SECONDS)

    def stop(self) -> None:
        """SIGTERM, and the exit code that a supervisor wants to see."""
        self.terminate()
        assert self.wait() == 0, self.log

    def kill(self) -> None:
        """For the end of a test that failed; does nothing to a process that has ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
