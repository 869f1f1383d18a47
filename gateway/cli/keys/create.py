"""`gateway keys create`: makes a key."""

import json
import re
import shlex
from typing import Any

import click

from gateway.access.keys.key import new_key
from gateway.access.keys.policy import policy_of
from gateway.access.keys.snapshot import configured_keys
from gateway.cli.keys.key_store import actor, open_store
from gateway.cli.keys.policy_options import policy_options, term_options
from gateway.cli.options import config_option
from gateway.config import Config, load
from gateway.errors import OperatorError


@click.command()
@config_option
@term_options
@click.option("--if-none", is_flag=True, help="Only where no key exists yet, configured ones included.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--port", type=int, help="The port of the server that is tried; by default the configured one.")
def create(path: str | None, *, if_none: bool, as_json: bool, port: int | None, **options: Any) -> None:
    """Make a key and show it, this once."""
    config = load(path, flags={} if port is None else {("server", "port"): port})
    if config.auth.mode == "none":
        if not if_none:
            raise OperatorError("auth.mode is 'none': this gateway asks nobody for a key")
        return
    table = policy_options(options)
    with open_store(config) as store:
        if if_none and (store.has_any() or configured_keys(config.auth)):
            return
        text, key = new_key()
        made = store.add(key, policy_of(table), by=actor())
    if as_json:
        click.echo(json.dumps({**made.to_dict(), "key": text}, ensure_ascii=False, indent=2))
        return
    click.echo(f"Your API key, shown this once and kept only as a hash:\n\n    {text}\n")
    click.echo("Try it, once a server is ready:\n")
    click.echo(f"    {curl(config, text)}\n")
    if ":PORT/" in curl(config, ""):
        click.echo("PORT is the one that the server takes, and says once it is ready.")


def curl(config: Config, text: str) -> str:
    """A curl command that works when pasted into a shell."""
    address = next((each for each in config.server.addresses if not each.path), config.server.addresses[0]).reachable
    way = f"--unix-socket {shlex.quote(address.path)} http://localhost" if address.path else address.url(config.server.port)
    way = re.sub(":0$", ":PORT", way)  # port 0 is any free one
    body = json.dumps({"model": config.models[0].name, "input": "Hello, world"}, ensure_ascii=False)
    return f"curl {way}/v1/embeddings -H 'Authorization: Bearer {text}' -H 'Content-Type: application/json' -d {shlex.quote(body)}"
