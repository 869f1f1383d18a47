"""`gateway serve`: starts the server."""

import asyncio
import sys
from typing import Any

import click

from gateway import log
from gateway.app import Gateway
from gateway.cli.browser import serve_and_open
from gateway.cli.malloc_tuning import bound_arenas
from gateway.cli.options import config_option
from gateway.cli.source_row import rows_of_flags
from gateway.config import ConfigSource
from gateway.errors import ConfigurationError
from gateway.processes.workers import num_workers
from gateway.server.event_loop import loop_factory


@click.command()
@config_option
@click.option(
    "--host", "hosts", multiple=True, help="The address to listen on: an IP address, or unix: and the path of a socket. Repeatable."
)
@click.option("--port", type=int, help="The port to listen on.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="HUB_ID_OR_FOLDER",
    help="Serve this model, by its hub id, its folder, or a short name of `models add`. Repeatable; replaces the configured ones.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser once the server listens.")
def serve(path: str | None, hosts: tuple[str, ...], port: int | None, models: tuple[str, ...], *, opens: bool) -> None:
    """Start the gateway."""
    bound_arenas()  # before threads get arenas of their own
    flags: dict[tuple[str, str], Any] = {
        ("server", "host"): list(hosts),
        ("server", "port"): port,
        ("models", ""): rows_of_flags(models),
    }
    source = ConfigSource(path, flags={name: value for name, value in flags.items() if value not in (None, [])})
    config = source.read()
    if opens and not config.page.enabled:
        raise ConfigurationError("page.enabled is false: there is no page that --open could open")
    if opens and all(address.path for address in config.server.addresses):
        raise ConfigurationError("server.host is a Unix socket, which no browser opens: --open needs an address")
    log.configure(level=config.log.level, line_format=config.log.format)
    num_fronts = num_workers(config.server.workers)
    if num_fronts > 1:
        from gateway.cli.serve_processes import serve_in_processes  # noqa: PLC0415 - 2 MB that one process does not need

        sys.exit(serve_in_processes(config, source, num_fronts, opens=opens))
    gateway = Gateway(config, source=source)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve_and_open(gateway) if opens else gateway.serve())
