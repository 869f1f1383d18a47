"""`gateway serve`."""

import asyncio
import sys
from typing import Any

import click

from gateway import log
from gateway.app import Gateway
from gateway.cli.options import config_option
from gateway.config import Source


@click.command()
@config_option
@click.option("--host", help="The address to listen on.")
@click.option("--port", type=int, help="The port to listen on.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="HUB_ID_OR_FOLDER",
    help="Serve this model, by its hub id or its folder's name. Repeatable; replaces the configured ones.",
)
def serve(path: str | None, host: str | None, port: int | None, models: tuple[str, ...]) -> None:
    """Start the gateway."""
    flags: dict[tuple[str, str], Any] = {
        ("server", "host"): host,
        ("server", "port"): port,
        ("models", ""): list(models),
    }
    source = Source(path, flags={name: value for name, value in flags.items() if value not in (None, [])})
    config = source.read()
    log.configure(level=config.log.level, line_format=config.log.format)
    gateway = Gateway(config, source=source)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(gateway.serve())


def loop_factory() -> Any:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not to be had on Windows

    return uvloop.new_event_loop
