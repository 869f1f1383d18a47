"""`gateway keys limit|rotate|revoke`: changes a key."""

import json
from typing import Any

import click

from gateway.access.keys.key import new_key
from gateway.access.keys.policy import iso
from gateway.cli.keys.key_store import actor, open_store
from gateway.cli.keys.policy_options import policy_options, span, term_options
from gateway.cli.keys.show import json_option, limits
from gateway.cli.options import config_option
from gateway.config import load
from gateway.errors import OperatorError


@click.command()
@config_option
@term_options
@json_option
@click.argument("public_id", metavar="ID")
def limit(path: str | None, public_id: str, *, as_json: bool, **options: Any) -> None:
    """Change what a key may do; limits that are not given stay. Running servers follow within 2 seconds."""
    changes = policy_options(options)
    if not changes:
        raise OperatorError("nothing to change was named: see `gateway keys limit --help`")
    with open_store(load(path)) as store:
        changed = store.amend(public_id, changes, by=actor())
    told = f"{public_id}: {limits(changed.policy)}; expires {iso(changed.policy.expires_at) or 'never'}"
    click.echo(json.dumps(changed.to_dict(), ensure_ascii=False, indent=2) if as_json else told)


@click.command()
@config_option
@json_option
@click.option(
    "--grace",
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="How long the old secret works beside the new; 0s ends it now.",
)
@click.argument("public_id", metavar="ID")
def rotate(path: str | None, public_id: str, *, grace: str, as_json: bool) -> None:
    """Give a key a new secret, and show it, this once. Its id, its limits and its usage stay."""
    text, key = new_key(public_id)
    with open_store(load(path)) as store:
        rotated = store.rotate(key, grace=span("--grace", grace), by=actor())
    if as_json:
        click.echo(json.dumps({**rotated.to_dict(), "key": text}, ensure_ascii=False, indent=2))
        return
    until = rotated.to_dict()["old_secret_until"]
    click.echo(f"The new key, shown this once and kept only as a hash:\n\n    {text}\n")
    click.echo(f"The old one works until {until}." if until else "The old one stops within 2 seconds.")


@click.command()
@config_option
@json_option
@click.argument("public_id", metavar="ID")
def revoke(path: str | None, public_id: str, *, as_json: bool) -> None:
    """Revoke a key, by its id. Running servers stop accepting it within 2 seconds."""
    with open_store(load(path)) as store:
        revoked = store.revoke(public_id, by=actor())
    click.echo(json.dumps(revoked.to_dict(), ensure_ascii=False, indent=2) if as_json else f"revoked {public_id}")
