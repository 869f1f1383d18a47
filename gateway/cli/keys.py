"""`gateway keys create|list|revoke`. A key is shown once, by `create`; what is kept cannot be turned back into it."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import click

from gateway.access.keyring import configured_keys
from gateway.access.keys import new_key
from gateway.access.store import KeyStore
from gateway.cli.options import config_option
from gateway.config import Config, load
from gateway.errors import OperatorError


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@contextmanager
def opened(config: Config) -> Iterator[KeyStore]:
    store = KeyStore(config.store.folder)
    store.open()
    try:
        yield store
    finally:
        store.close()


@keys.command()
@config_option
@click.option("--name", default="default", help="What the key is for.")
@click.option("--if-none", is_flag=True, help="Only where no key exists yet, configured ones included.")
def create(path: str | None, name: str, if_none: bool) -> None:
    """Make a key and show it, this once."""
    config = load(path)
    if config.auth.mode == "none":
        if not if_none:
            raise OperatorError("auth.mode is 'none': this gateway asks nobody for a key")
        return
    with opened(config) as store:
        if if_none and (store.in_force() or configured_keys(config.auth)):
            return
        text, key = new_key()
        store.add(key, name=name)
    click.echo(f"Your API key, shown this once and kept only as a hash:\n\n    {text}\n")
    click.echo("Try it, once a server is ready:\n")
    click.echo(f"    {curl(config, text)}\n")


def curl(config: Config, text: str) -> str:
    """A command that works when pasted."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.server.host, config.server.host)  # noqa: S104 - compared, not bound
    body = json.dumps({"model": config.models[0].name, "input": "Hello, world"}, ensure_ascii=False)
    return (
        f"curl http://{host}:{config.server.port}/v1/embeddings -H 'Authorization: Bearer {text}'"
        f" -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )


@keys.command(name="list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_keys(path: str | None, as_json: bool) -> None:
    """List the keys of the store; those of the environment and of the key file are not in it."""
    with opened(load(path)) as store:
        stored = store.all()
    rows = [
        {
            "id": each.key.public_id,
            "name": each.name,
            "created": each.created_at.isoformat(sep=" ", timespec="seconds"),
            "revoked": each.revoked_at.isoformat(sep=" ", timespec="seconds") if each.revoked_at else None,
        }
        for each in stored
    ]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    click.echo(f"{'ID':<12} {'CREATED (UTC)':<20} {'REVOKED (UTC)':<20} NAME")
    for row in rows:
        click.echo(f"{row['id']:<12} {row['created']:<20} {row['revoked'] or '-':<20} {row['name']}")


@keys.command()
@config_option
@click.argument("public_id", metavar="ID")
def revoke(path: str | None, public_id: str) -> None:
    """Revoke a key, by its id. Running servers stop accepting it within 2 seconds."""
    with opened(load(path)) as store:
        if not store.revoke(public_id):
            raise OperatorError(f"no key in force has the id '{public_id}': see `gateway keys list`")
    click.echo(f"revoked {public_id}")
