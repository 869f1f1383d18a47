"""`gateway batches list|show|cancel`: the batches of all keys, from the database that the gateways share."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from gateway.access.database import Database
from gateway.batches.job import BatchJob
from gateway.batches.store import BatchStore
from gateway.cli.keys.key_store import actor
from gateway.cli.keys.show import json_option
from gateway.cli.options import config_option
from gateway.cli.table import align
from gateway.config import load
from gateway.errors import BatchEnded, OperatorError, UnknownBatch

MAX_SHOWN = 100_000
HEADING = ("ID", "KEY", "STATUS", "MADE (UTC)", "MODEL", "REQUESTS", "DONE", "FAILED")
OF_THE_LEASE = ("lease_owner", "lease_until", "lease_number", "is_reported", "position", "num_shards", "ending")


@click.group()
def batches() -> None:
    """Show and cancel batches (/v1/batches)."""


@contextmanager
def _open_store(path: str | None) -> Iterator[BatchStore]:
    """Raises OperatorError, also from within the block, if the database cannot be used, or a batch is unknown or has ended."""
    database = Database(load(path).store)
    try:
        database.open()
        yield BatchStore(database)
    except (UnknownBatch, BatchEnded) as error:
        raise OperatorError(f"{error.message.rstrip('.')}: see `gateway batches list`") from None
    finally:
        database.close()


@batches.command(name="list")
@config_option
@json_option
@click.option("--key", "key_id", metavar="ID", help="Only this key's.")
@click.option("--limit", type=click.IntRange(1, MAX_SHOWN), default=100, show_default=True, help="The latest so many.")
def list_batches(path: str | None, *, key_id: str | None, limit: int, as_json: bool) -> None:
    """List batches, the newest first."""
    with _open_store(path) as store:
        found = store.page(key_id, limit=limit)
    if as_json:
        click.echo(json.dumps([_shown(job) for job in found], ensure_ascii=False, indent=2))
        return
    rows = [
        (job.id, job.owner, job.status, _time(job.created_at), job.model or "-", *map(str, (job.total, job.completed, job.failed)))
        for job in found
    ]
    click.echo(align(HEADING, rows, right=(5, 6, 7)))


@batches.command()
@config_option
@json_option
@click.argument("batch_id", metavar="ID")
def show(path: str | None, batch_id: str, *, as_json: bool) -> None:
    """Show a batch: how far it is, who works on it, and why it failed."""
    with _open_store(path) as store:
        job = store.find(batch_id)
    if as_json:
        click.echo(json.dumps({**_shown(job), "gateway": job.lease_owner}, ensure_ascii=False, indent=2))
        return
    facts = {name: value for name, value in _shown(job).items() if value not in (None, [], {}) and name != "errors"}
    rows = [(name, _time(value) if name.endswith("_at") else str(value)) for name, value in facts.items()]
    click.echo(align(("", ""), [*rows, ("gateway", job.lease_owner or "none")]).partition("\n")[2])
    for error in job.errors:
        click.echo(f"{f'line {error.line}: ' if error.line else ''}{error.code}: {error.message}")


@batches.command()
@config_option
@click.argument("batch_id", metavar="ID")
def cancel(path: str | None, batch_id: str) -> None:
    """Cancel a batch; what is done is kept. A running gateway does the rest."""
    with _open_store(path) as store:
        job = store.cancel(batch_id, None, by=actor())
    click.echo(f"{job.id} is {job.status}")


def _shown(job: BatchJob) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(job)
    return {name: value for name, value in facts.items() if name not in OF_THE_LEASE}


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
