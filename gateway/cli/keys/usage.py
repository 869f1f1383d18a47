"""`gateway keys usage`: shows what keys used."""

import dataclasses
import json

import click

from gateway.access.schema import COUNTS
from gateway.access.usage import period
from gateway.access.usage.period import SPANS, Span
from gateway.access.usage.store import UsageStore
from gateway.cli.keys.key_store import open_store
from gateway.cli.keys.show import json_option
from gateway.cli.options import config_option
from gateway.cli.table import align
from gateway.config import load
from gateway.errors import OperatorError

MAX_ROWS = 1_000_000
HEADING = ("PERIOD (UTC)", "KEY", "MODEL", "REQUESTS", "INPUTS", "TOKENS", "CACHED TOKENS")


@click.command()
@config_option
@json_option
@click.option("--by", type=click.Choice(SPANS), default="day", show_default=True, help="What to sum.")
@click.option("--since", metavar="DURATION", default="30d", show_default=True, help="How far back: 12h, 7d.")
@click.argument("public_id", metavar="[ID]", required=False)
def usage(path: str | None, public_id: str | None, *, by: Span, since: str, as_json: bool) -> None:
    """Show what each key used of each model, keys from the environment included. Servers write it every few seconds."""
    try:
        first = period.since(since)
    except ValueError as error:
        raise OperatorError(f"--since: {error}") from None
    with open_store(load(path)) as store:
        rows = UsageStore(store.database).report(by=by, since=first, key=public_id, limit=MAX_ROWS)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], ensure_ascii=False, indent=2))
        return
    cells = [(row.period, row.key, row.model, *(str(getattr(row, name)) for name in COUNTS)) for row in rows]
    sums = [str(sum(getattr(row, name) for row in rows)) for name in COUNTS]
    click.echo(align(HEADING, [*cells, ("total", "", "", *sums)], right=range(3, len(HEADING))))
