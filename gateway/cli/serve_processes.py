"""`gateway serve` in several processes."""

import subprocess
import sys

from gateway.cli.browser import page_address
from gateway.config import Config, ConfigSource
from gateway.processes.engine_process import run_engine
from gateway.processes.front import run_front
from gateway.processes.listeners import Listeners
from gateway.processes.supervisor import Supervisor


def serve_in_processes(config: Config, source: ConfigSource, num_fronts: int, *, opens: bool) -> int:
    """Serves until a signal. Returns the exit code. Raises OperatorError if an address cannot be used."""
    listeners = Listeners(config)
    try:
        supervisor = Supervisor(config, source, listeners, num_fronts=num_fronts, runs={"engine": run_engine, "front": run_front})
        if opens:
            address = next(url for url in listeners.urls if url.startswith("http"))
            supervisor.on_listening = lambda: _open_page(page_address(address))
        return supervisor.run()
    finally:
        listeners.close()


def _open_page(url: str) -> None:
    """Opens the page in a program of its own, since the supervisor starts no thread and waits for nobody. It reaps it too."""
    program = "import sys; from gateway.cli.browser import open_page; open_page(sys.argv[1])"
    subprocess.Popen([sys.executable, "-c", program, url])  # noqa: S603 - our own program, and an address of ours
