"""`gateway serve` in several processes."""

import os

from gateway.cli.browser import open_page, page_address
from gateway.config import Config, ConfigSource
from gateway.processes.engine_process import run_engine
from gateway.processes.front import run_front
from gateway.processes.listeners import Listeners
from gateway.processes.supervisor import Supervisor


def serve_in_processes(config: Config, source: ConfigSource, num_fronts: int, *, opens: bool) -> int:
    """Serves until a signal. Returns the exit code. Raises OperatorError if an address cannot be used."""
    listeners = Listeners(config)
    try:
        if opens:
            _open_page_of(listeners)
        supervisor = Supervisor(config, source, listeners, num_fronts=num_fronts, runs={"engine": run_engine, "front": run_front})
        return supervisor.run()
    finally:
        listeners.close()


def _open_page_of(listeners: Listeners) -> None:
    """Opens the page in a process of its own: the supervisor starts no thread, and waits for nobody."""
    address = next(url for url in listeners.urls if url.startswith("http"))
    if os.fork() == 0:
        try:
            listeners.release(kept=[])
            open_page(page_address(address))
        finally:
            os._exit(0)
