"""`gateway serve --open`: the page, in the browser of whoever starts the server."""

import asyncio
import webbrowser
from functools import partial

import click

from gateway.app import Gateway
from gateway.background import BackgroundThread, launch
from gateway.config import local_url

INTERVAL_SECONDS = 0.05


async def serve_and_open(gateway: Gateway) -> None:
    """Serves; once connections are accepted, while models may still be loading, the page is opened."""
    opening = launch(open_once_listening(gateway), name="browser")
    try:
        await gateway.serve()
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)


async def open_once_listening(gateway: Gateway) -> None:
    while gateway.server is None or not gateway.server.started:  # noqa: ASYNC110 - uvicorn tells it by an attribute alone
        await asyncio.sleep(INTERVAL_SECONDS)
    # A thread of its own that nobody waits for: a browser in the terminal runs until it is closed.
    BackgroundThread("browser", partial(open_page, page_address(gateway.address)), may_end=True).start()


def open_page(url: str) -> None:
    if not webbrowser.open(url):
        click.echo(f"no browser could be opened: the page is at {url}", err=True)


def page_address(address: str) -> str:
    """`address` is where the server listens."""
    return f"{local_url(address)}/"
