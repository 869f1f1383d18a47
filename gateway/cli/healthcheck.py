"""`gateway healthcheck`: for images and supervisors, which run it every few seconds. It imports none of the server's modules."""

import http.client
import json
import socket
import sys

import click

from gateway.cli.options import config_option
from gateway.config import Config, load

OK = 200
ANSWERS_BYTES = 64 * 1024  # far more than a probe's answer


@click.command()
@config_option
@click.option("--live", is_flag=True, help="Ask /livez, whether a restart is needed, instead of /readyz, whether it serves.")
@click.option("--timeout", "timeout_seconds", default=3.0, show_default=True, type=click.FloatRange(min=0, min_open=True))
def healthcheck(path: str | None, *, live: bool, timeout_seconds: float) -> None:
    """Ask the gateway that runs here whether it is ready. Exit code 0 or 1, and one line."""
    url = "/livez" if live else "/readyz"
    is_well, words = probe(load(path), url, timeout_seconds)
    click.echo(f"{url}: {words}")
    sys.exit(0 if is_well else 1)


def probe(config: Config, url: str, timeout_seconds: float) -> tuple[bool, str]:
    """Whether the answer was 200, and a summary of it. It uses no proxy: the server is on this machine."""
    address = config.server.addresses[0].reachable
    place = address.url(config.server.port).removeprefix("http://")
    connection = http.client.HTTPConnection(address.host or "localhost", config.server.port, timeout=timeout_seconds)
    if address.path:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(timeout_seconds)
    try:
        if address.path:
            connection.sock.connect(address.path)
        connection.request("GET", url)
        answer = connection.getresponse()
        return answer.status == OK, describe(answer.status, answer.read(ANSWERS_BYTES))
    except TimeoutError:
        return False, f"no answer from {place} within {timeout_seconds:g} s"
    except (OSError, http.client.HTTPException) as error:
        return False, f"no answer from {place}: {getattr(error, 'strerror', None) or type(error).__name__}"
    finally:
        connection.close()


def describe(status: int, body: bytes) -> str:
    """A summary of a probe's answer, for example "loading (503), waiting_for: all-MiniLM-L6-v2"."""
    try:
        told = dict(json.loads(body))
    except (ValueError, TypeError):
        return f"status {status}"
    lists = [f"{name}: {', '.join(map(str, value))}" for name, value in told.items() if isinstance(value, list)]
    return ", ".join([f"{told.get('status', 'status')} ({status})", *lists])
