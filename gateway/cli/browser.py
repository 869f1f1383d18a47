"""`gateway serve --open`: opens the page in the operator's browser."""

import asyncio
import webbrowser
from functools import partial

import click

from gateway.app import Gateway
from gateway.background import BackgroundThread, launch
from gateway.config import local_url

INTERVAL_SECONDS = 0.05


async def serve_and_open(gateway: Gateway) -> None:
    """Serves, and opens the page once connections are accepted; models may still be loading then."""
    opening = launch(_open_once_listening(gateway), name="browser")
    try:
        await gateway.serve()
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)


async def _open_once_listening(gateway: Gateway) -> None:
    while gateway.server is None or not gateway.server.started:  # noqa: ASYNC110 - uvicorn only has an attribute for it
        await asyncio.sleep(INTERVAL_SECONDS)
    # A thread that is not joined: a browser in the terminal runs until it is closed.
    BackgroundThread("browser", partial(open_page, page_address(gateway.address)), may_end=True).start()


def open_page(url: str) -> None:
    """Opens a page in the operator's browser. May block until that is closed."""
    if not webbrowser.open(url):
        click.echo(f"no browser could be opened: the page is at {url}", err=True)


def page_address(address: str) -> str:
    """The page's URL. `address` is the one that the server listens on."""
    return f"{local_url(address)}/"
