"""`gateway bench`: a closed-loop load test of any OpenAI-compatible server, measured at the client."""

import asyncio
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
from msgspec import UNSET

from gateway.cli.load.clients import TICK_SECONDS, Clients
from gateway.cli.load.measured_window import MeasurementWindow
from gateway.cli.load.peer import BenchRequest, BenchTarget, base_url, open_session
from gateway.cli.load.report import BenchReport, report_of, table
from gateway.cli.load.texts import Texts, lines, sentences
from gateway.config import first_set
from gateway.errors import OperatorError
from gateway.server.event_loop import loop_factory
from gateway.wire.request import EncodingFormat

DEFAULT_URL = "http://127.0.0.1:8000/v1"
KEY_VARIABLES = ("GATEWAY_API_KEY", "OPENAI_API_KEY")
EXIT_ERRORS, EXIT_INTERRUPTED = 1, 130
DAY = 24 * 60 * 60


@dataclass(frozen=True, kw_only=True)
class _BenchOptions:
    """The options of the command line; `key` comes from the environment."""

    url: str
    model: str | None
    key: str | None
    inputs: int
    clients: int
    seconds: float
    warmup_seconds: float
    timeout_seconds: float
    encoding_format: str
    dimensions: int | None
    texts: Path | None
    repeat: bool

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.seconds, self.warmup_seconds, self.timeout_seconds))):
            raise OperatorError("seconds must be a number")
        if self.model is not None and not self.model.isprintable():
            raise OperatorError("--model must be printable")


@click.command()
@click.option("--url", default=DEFAULT_URL, show_default=True, help="An SDK's base_url; /v1 is added to an address without a path.")
@click.option("--model", help="The model's name. Default: the first in GET {url}/models.")
@click.option(
    "--api-key-env",
    metavar="NAME",
    help=f"The environment variable that holds the key. Default: {', then '.join(KEY_VARIABLES)}, else no key is sent.",
)
@click.option("--inputs", type=click.IntRange(1, 2048), default=64, show_default=True, help="Texts a request.")
@click.option("--clients", type=click.IntRange(1, 1000), default=4, show_default=True, help="Requests under way at once.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, DAY, min_open=True),
    default=10,
    show_default=True,
    help="How long to measure; longer where a client had no answer yet.",
)
@click.option("--warmup-seconds", type=click.FloatRange(0, DAY), default=2, show_default=True, help="Load before the measure.")
@click.option(
    "--timeout-seconds",
    type=click.FloatRange(0, DAY, min_open=True),
    default=120,
    show_default=True,
    help="A request that takes longer is an error.",
)
@click.option("--encoding-format", type=click.Choice(get_args(EncodingFormat)), default="base64", show_default=True)
@click.option("--dimensions", type=click.IntRange(min=1), help="Ask for shorter vectors.")
@click.option(
    "--texts",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts of your own, one a line. Default: built-in English sentences, 40 tokens on average.",
)
@click.option(
    "--repeat", is_flag=True, help="Send the texts as they are, again and again. Otherwise each gets a number, so no cache helps."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def bench(*, as_json: bool, api_key_env: str | None, **asked: Any) -> None:
    """Measure an OpenAI-compatible server: throughput, latency, errors.

    Each client sends its next request once the previous one is answered. A reply with wrong contents is an error too.

    \b
    Exit code 0    every reply was good
              1    some were not: the table counts them by kind
              2    nothing could be measured, and one line says why
              130  stopped by Ctrl-C; the table shows the figures until then
    """
    options = _BenchOptions(key=find_key(api_key_env), **asked)
    with progress(options) as show, asyncio.Runner(loop_factory=loop_factory()) as runner:
        report = runner.run(measure(options, show))
    click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2) if as_json else "\n".join(table(report)))
    if report.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if report.num_errors:
        sys.exit(EXIT_ERRORS)


def find_key(variable: str | None) -> str | None:
    """The key from the environment; None if there is none.

    Raises OperatorError, which repeats neither the key nor the variable's name: a user may pass the key as the name by mistake.
    """
    key = first_set([variable] if variable else KEY_VARIABLES)
    if key is None and variable:
        raise OperatorError("the environment variable that --api-key-env names is not set")
    if key is not None and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise OperatorError("the API key in the environment has characters that no header can carry")
    return key


@contextmanager
def progress(options: _BenchOptions) -> Iterator[Callable[[Clients], None]]:
    """A progress bar. Yields the function to call every tick. Draws nothing if standard error is no terminal."""
    with click.progressbar(
        length=math.ceil((options.warmup_seconds + options.seconds) / TICK_SECONDS),
        label="measuring",
        item_show_func=lambda words: words or "warming up",
        show_eta=False,
        show_percent=False,
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
    ) as bar:
        yield lambda clients: bar.update(1, _so_far(clients))


def _so_far(clients: Clients) -> str | None:
    """The figures so far, for the progress bar; None during the warm-up."""
    tally, seconds = clients.tally, clients.window.seconds_until(time.perf_counter())
    if not seconds:
        return None
    return f"{tally.num_inputs / seconds:,.0f} inputs/s  {tally.num_requests:,} requests  {tally.errors.total():,} errors"


async def measure(options: _BenchOptions, show: Callable[[Clients], None]) -> BenchReport:
    """Runs the load, and returns its report; if cancelled during the load, a report of the time until then.

    Raises OperatorError if there is nothing to measure.
    """
    label = None if options.repeat else f"Note {int(time.time()) % 1_000_000}"  # so that each run has texts of its own
    texts = Texts(lines(options.texts) if options.texts else sentences(), label=label)
    url = base_url(options.url)
    async with open_session(url, key=options.key, num_connections=options.clients) as http:
        peer = BenchTarget(http, key=options.key, timeout_seconds=options.timeout_seconds)
        request = BenchRequest(
            model=options.model or await peer.first_model(),
            encoding_format=options.encoding_format,
            dimensions=options.dimensions or UNSET,
        )
        window = MeasurementWindow(num_clients=options.clients, seconds=options.seconds, warmup_seconds=options.warmup_seconds)
        clients = Clients(peer, request, texts, num_inputs=options.inputs, window=window)
        await peer.try_out(clients.next_request())
        is_interrupted = False
        try:
            await clients.run(lambda: show(clients))
        except asyncio.CancelledError:  # Ctrl-C
            is_interrupted = True
    return report_of(clients, url=url, is_interrupted=is_interrupted)
