"""`gateway embed`: embeds the texts of a file, and writes their vectors to a file, with any configured model."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import click
import msgspec

from gateway.app import Gateway
from gateway.background import launch
from gateway.bulk import reasons
from gateway.bulk.options import BulkOptions
from gateway.bulk.row import shown
from gateway.bulk.run import BulkResult, BulkRun
from gateway.bulk.source import Format, InputOptions
from gateway.cli.options import config_option
from gateway.cli.source_row import READY, rows_of_flags
from gateway.config import CacheSettings, Config, LongInput, load
from gateway.embedding.catalog import Model
from gateway.embedding.model import refuse_other_than_embedder
from gateway.errors import OperatorError
from gateway.server.event_loop import loop_factory

EXIT_REJECTED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143
IN_FLIGHT_ELSEWHERE = 4  # shards, with a model that runs on another machine
DAY = 24 * 60 * 60
FOLDER_STARTS = (".", "/", "~")
FileDtype = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]  # as NumPy calls the first


@click.command()
@click.argument("input", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A file that ends in .parquet or .npy.")
@click.option(
    "--model",
    "name",
    metavar="NAME_OR_HUB_ID_OR_FOLDER",
    help="A configured model, by its name or an alias; or any other, by its hub id, its folder, or a short name of `models add`."
    " Default: the only one, or server.default_model.",
)
@click.option("--format", "form", type=click.Choice(get_args(Format)), help="Default: as the input's name ends.")
@click.option("--column", help="The column, or the field, with the texts. Default: text.")
@click.option("--id", "id_column", help="The column, or the field, with each row's id. Default: id, where there is one.")
@click.option("--no-id", "numbered", is_flag=True, help="Number the rows from 0, though there is a column id.")
@click.option("--keep", metavar="COLUMNS|all", help="Columns that go along to a .parquet, with commas between, or all.")
@click.option("--delimiter", help="Between the fields of CSV and TSV: one character, or tab. Default: a comma, of TSV a tab.")
@click.option("--quote", help='Around fields of CSV and TSV: one character, or none. Default: ", of TSV none.')
@click.option("--encoding", help="Of a text, as utf-16 or cp1252. Default: as its byte order mark says, else UTF-8.")
@click.option("--dimensions", type=click.IntRange(min=1), help="Shorter vectors: the first so many numbers, to length 1 again.")
@click.option(
    "--dtype",
    type=click.Choice(get_args(FileDtype)),
    default="float32",
    show_default=True,
    help="The type of the numbers: binary and ubinary have eight dimensions in each. As the API's output_dtype.",
)
@click.option("--input-type", help="Which of the model's prompts the texts get: query, document, or any other name it has.")
@click.option("--long-input", type=click.Choice(get_args(LongInput)), help="What becomes of texts longer than the model reads.")
@click.option("--report", is_flag=True, help="List the texts that were chunked or cut in OUTPUT.report.jsonl.")
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
def embed(
    *, path: str | None, name: str | None, in_flight: int | None, patience_seconds: float, dtype: FileDtype, **asked: Any
) -> None:
    """Embed the texts of a file: text lines, JSON lines, a JSON array, CSV, TSV or Parquet, or a folder of such files.

    A file may be compressed by gzip or zstd. - is standard input, which is spooled beside OUTPUT; it needs --format.

    A .parquet has the columns id and embedding. With a .npy comes OUTPUT.ids.jsonl, with one id per line. If the input has no ids,
    the rows are numbered from 0, and the column is called row. Ids of CSV are integers if all are written as integers. A kept
    column with the name of an output column becomes input_NAME.

    Rows that cannot be embedded are listed in OUTPUT.rejected.jsonl, by number, id, reason and line, and do not stop the run. Every
    row of the input is either embedded unchanged, or listed there. A line ends with LF, CRLF or CR. Blank lines are no rows, except
    in text lines. A field of CSV in quotes may contain line ends, and a record has as many fields as the header.

    The same command resumes a run that was killed: no row is lost or doubled, and the vectors are those of an unbroken run. Until
    then its work is in OUTPUT.unfinished. The input is the same if its content is.

    \b
    Exit code 0    every row was embedded
              1    some were rejected
              2    it could not begin, or not go on, and one line says why
              130  stopped by Ctrl-C (143 by SIGTERM): the same command goes on
    """
    config = load(path)
    if name is not None and _is_source_of_model(config, name):
        config, name = load(path, flags={("models", ""): rows_of_flags([name])}), None
    # No cache: a cached vector is from another batch, and which texts are cached would depend on where a run began.
    gateway = Gateway(msgspec.structs.replace(config, cache=CacheSettings(max_bytes=0)))
    model = _choose_model(gateway, name)
    bound = gateway.bind(model.row)
    refuse_other_than_embedder(model.name, bound.preview().kind)
    is_local = bound.is_local()
    options = BulkOptions(
        reading=InputOptions(**{each: asked.pop(each) for each in InputOptions.__dataclass_fields__ if each in asked}),
        dtype="float" if dtype == "float32" else dtype,
        in_flight=in_flight or (1 if is_local else IN_FLIGHT_ELSEWHERE),
        patience_seconds=patience_seconds,
        start_seconds=None if is_local else patience_seconds,  # compiling a model may take any time
        **asked,
    )
    try:
        run = BulkRun(options, model)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            result = runner.run(_run_until_stopped(run))
    except OSError as error:
        raise OperatorError(f"{shown(Path(error.filename or options.output))}: {error.strerror or error}") from None
    click.echo(reasons.summary(result.rejections, run.output.rejected), nl=False, err=True)
    click.echo(_closing_line(result, run))
    if result.done.num_rejected:
        sys.exit(EXIT_REJECTED)


def _is_source_of_model(config: Config, name: str) -> bool:
    """Whether `name` is a path, a hub id or a short name of `models add`, and no model has that name."""
    named = {each for row in config.models for each in (row.name, *row.aliases)}
    is_source = Path(name).is_dir() or name.startswith(FOLDER_STARTS) or name.count("/") == 1 or name in READY
    return name not in named and is_source


def _closing_line(result: BulkResult, run: BulkRun) -> str:
    done = result.done
    counts = {"embedded": done.num_vectors, "rejected": done.num_rejected, "chunked": done.num_chunked, "cut": done.num_cut}
    always = {"embedded", "rejected"}
    totals = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number or what in always)
    where = shown(run.output.long) if run.options.report else "--report lists them"
    listed = f" ({where})" if done.num_chunked + done.num_cut else ""
    return f"{shown(run.options.output)}: {done.row:,} rows: {totals}{listed}" + "".join(f", {rate}" for rate in result.rates)


async def _run_until_stopped(run: BulkRun) -> BulkResult:
    """Runs to the end, or until Ctrl-C or SIGTERM, which exit with their own codes."""
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


def _choose_model(gateway: Gateway, name: str | None) -> Model:
    """Returns the model to use. Raises OperatorError if the name is unknown, or no name is given and there are several models."""
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
