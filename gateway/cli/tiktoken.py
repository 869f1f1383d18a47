"""`gateway tiktoken`: writes tiktoken's cache, from the gateway's own copy of the ranks, for clients that cannot download them."""

import hashlib
from pathlib import Path

import click

from gateway.errors import OperatorError
from gateway.wire.token_ids import published_ranks

URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
FILE_NAME = hashlib.sha1(URL.encode(), usedforsecurity=False).hexdigest()  # tiktoken/load.py, read_file_cached


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def tiktoken(folder: Path) -> None:
    """Write cl100k_base into FOLDER as tiktoken caches it, so that LangChain and others start without a network.

    They find it by the environment variable TIKTOKEN_CACHE_DIR.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE_NAME).write_bytes(published_ranks())
    except OSError as error:
        raise OperatorError(f"{folder} cannot be written: {error.strerror}") from None
    click.echo(f"{folder / FILE_NAME}\nSet TIKTOKEN_CACHE_DIR={folder.absolute()} where the clients run.")
