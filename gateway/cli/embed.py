"""`gateway embed`: the texts of a file, to vectors in a file, with any configured model."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from gateway.app import Gateway
from gateway.background import launch
from gateway.bulk.journal import Checkpoint
from gateway.bulk.run import BulkOptions, BulkRun
from gateway.bulk.source import Format
from gateway.cli.options import config_option
from gateway.cli.serve import loop_factory
from gateway.config import CacheSettings, LongInput, load
from gateway.embedding.catalog import Model
from gateway.errors import OperatorError

EXIT_REJECTED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143
IN_FLIGHT_ELSEWHERE = 4  # shards with a model that another machine runs
DAY = 24 * 60 * 60


@click.command()
@click.argument("input", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A file that ends in .parquet or .npy.")
@click.option(
    "--model", "name", help="A configured model, by its name or an alias. Default: the only one there is, or server.default_model."
)
@click.option("--format", "form", type=click.Choice(get_args(Format)), help="Default: as the input's name ends.")
@click.option("--column", help="The column, or the field, with the texts. Default: text.")
@click.option("--id", "id_column", help="The column, or the field, with each row's id. Default: its number, from 0.")
@click.option("--dimensions", type=click.IntRange(min=1), help="Shorter vectors: the first so many numbers, to length 1 again.")
@click.option("--input-type", help="Which of the model's prompts the texts get: query, document, or any other name it has.")
@click.option("--long-input", type=click.Choice(get_args(LongInput)), help="What becomes of texts longer than the model reads.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT where it exists, once all is done.")
@click.option("--restart", is_flag=True, help="Begin anew, where unfinished work would be gone on with.")
@click.option(
    "--in-flight",
    type=click.IntRange(1, 64),
    help=f"Shards of 2,048 rows embedded at once. Default: {IN_FLIGHT_ELSEWHERE} with a model on another machine, else 1: more"
    " would share batches, and the last bits of a vector would depend on chance.",
)
@click.option(
    "--patience-seconds",
    type=click.FloatRange(0, DAY),
    default=300,
    show_default=True,
    help="How long a model that is unavailable or overloaded is asked again.",
)
@config_option
def embed(*, path: str | None, name: str | None, in_flight: int | None, patience_seconds: float, **asked: Any) -> None:
    """Embed the texts of a file: text lines, JSON lines, CSV, TSV or Parquet.

    A .parquet has the columns id and embedding; beside a .npy lies OUTPUT.ids.jsonl with an id a line. Rows that cannot be embedded
    are told in OUTPUT.rejected.jsonl, by number, id and reason, and stop nothing. A run that was killed is gone on with by the same
    command: no row is lost or doubled, and the vectors are those of an unbroken run. Until then its work is in OUTPUT.unfinished.

    \b
    Exit code 0    every row was embedded
              1    some were rejected
              2    it could not begin, or not go on, and one line says why
              130  stopped by Ctrl-C (143 by SIGTERM): the same command goes on
    """
    config = load(path)
    # A vector from a cache would be another batch's, and which texts it holds would depend on where a run began.
    gateway = Gateway(msgspec.structs.replace(config, cache=CacheSettings(max_bytes=0)))
    model = choose_model(gateway, name)
    is_local = gateway.bind(model.row).is_local()
    options = BulkOptions(
        in_flight=in_flight or (1 if is_local else IN_FLIGHT_ELSEWHERE),
        patience_seconds=patience_seconds,
        start_seconds=None if is_local else patience_seconds,  # compiling a model takes what it takes
        **asked,
    )
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            done = runner.run(run_until_stopped(BulkRun(options, model)))
    except OSError as error:
        raise OperatorError(f"{error.filename or options.output}: {error.strerror or error}") from None
    click.echo(f"{done.row:,} rows: {done.num_vectors:,} embedded, {done.num_rejected:,} rejected")
    click.echo(str(options.output))
    if done.num_rejected:
        sys.exit(EXIT_REJECTED)


async def run_until_stopped(run: BulkRun) -> Checkpoint:
    """To the end, or to Ctrl-C or SIGTERM, which exit with their own codes."""
    task = launch(run.to_end(), name="embed")
    loop = asyncio.get_running_loop()
    codes: list[int] = []

    def stop() -> None:
        codes.append(EXIT_TERMINATED)
        task.cancel()

    if sys.platform != "win32":
        loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        return await task
    except asyncio.CancelledError:
        click.echo(
            f"gateway: stopped; {run.journal.done.row:,} rows are done, and the same command goes on with the rest", err=True
        )
        sys.exit(codes[0] if codes else EXIT_INTERRUPTED)
    finally:
        await run.model.embedder.close()


def choose_model(gateway: Gateway, name: str | None) -> Model:
    """Raises OperatorError where the name is unknown, or none was given and there are several."""
    catalog = gateway.catalog
    if name is None and len(catalog.models) == 1:
        return catalog.models[0]
    name = name or gateway.config.server.default_model
    names = ", ".join(model.name for model in catalog.models)
    if name is None:
        raise OperatorError(f"--model: which one? There are {names}")
    if name not in catalog.by_name:
        raise OperatorError(f"no model has the name or alias '{name}'; there are {names}")
    return catalog.by_name[name]
