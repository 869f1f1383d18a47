"""`gateway keys list|show|audit`: shows keys and their history."""

import json
from typing import Any

import click

from gateway.access.keys import audit as trail
from gateway.access.keys.audit import AuditEvent
from gateway.access.keys.key import EVERY_MODEL
from gateway.access.keys.key_record import KeyRecord
from gateway.access.keys.policy import KeyPolicy
from gateway.cli.keys.key_store import open_store
from gateway.cli.options import config_option
from gateway.cli.table import align
from gateway.config import load

NUM_SHOWN = 10  # events of a key's history
MAX_SHOWN = 100_000

json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.command(name="list")
@config_option
@json_option
def list_keys(path: str | None, *, as_json: bool) -> None:
    """List the keys of the store. It does not contain those of the environment and of the key file."""
    with open_store(load(path)) as store:
        stored = list(store.all())
    if as_json:
        click.echo(json.dumps([each.to_dict() for each in stored], ensure_ascii=False, indent=2))
        return
    rows = [(each.key.public_id, each.policy.name, each.state, day(each.policy.expires_at), limits(each.policy)) for each in stored]
    click.echo(align(("ID", "NAME", "STATE", "EXPIRES", "LIMITS"), rows))


@click.command()
@config_option
@json_option
@click.argument("public_id", metavar="ID")
def show(path: str | None, public_id: str, *, as_json: bool) -> None:
    """Show a key and its history: who changed it, and how."""
    with open_store(load(path)) as store:
        found = store.get(public_id)
        events = trail.history(store.database, public_id, limit=NUM_SHOWN)
    if as_json:
        told = {**found.to_dict(), "history": [event.to_dict() for event in events]}
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
        return
    click.echo(align(("", ""), facts(found)).partition("\n")[2])
    click.echo(f"\n{history(events)}")


@click.command()
@config_option
@json_option
@click.option(
    "--limit", "num_events", type=click.IntRange(1, MAX_SHOWN), default=100, show_default=True, help="The latest so many."
)
@click.argument("public_id", metavar="[ID]", required=False)
def audit(path: str | None, public_id: str | None, *, num_events: int, as_json: bool) -> None:
    """Show who did what to which key, and when; the latest first."""
    with open_store(load(path)) as store:
        events = trail.history(store.database, public_id, limit=num_events)
    click.echo(json.dumps([event.to_dict() for event in events], ensure_ascii=False, indent=2) if as_json else history(events))


def history(events: list[AuditEvent]) -> str:
    rows = [(f"{event.at:%Y-%m-%d %H:%M:%S}", event.actor, event.action, event.key_id, changes(event.detail)) for event in events]
    return align(("WHEN (UTC)", "WHO", "DID", "KEY", "WHAT"), rows)


def changes(detail: dict[str, Any]) -> str:
    """An event's details, without those that have their default value."""
    usual = {"name": None, "models": list(EVERY_MODEL), "budget_period": "month", "is_admin": False, "metadata": []}
    shown = detail if len(detail) < len(usual) else {name: value for name, value in detail.items() if value != usual.get(name)}
    return ", ".join(f"{name}={plain(value)}" for name, value in shown.items()) or "-"


def plain(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else "none" if value is None else str(value)


def facts(found: KeyRecord) -> list[tuple[str, str]]:
    told = {**found.to_dict(), "metadata": ", ".join(f"{name}={value}" for name, value in found.policy.metadata.items()) or None}
    return [(name, plain(value)) for name, value in told.items() if value is not None]


def limits(policy: KeyPolicy) -> str:
    """For example `600 rpm, 1000000 tokens/day, models all-*`."""
    shown = [
        *([f"{policy.requests_per_minute} rpm"] if policy.requests_per_minute else []),
        *([f"{policy.tokens_per_minute} tpm"] if policy.tokens_per_minute else []),
        *([f"{policy.max_concurrent_requests} at once"] if policy.max_concurrent_requests else []),
        *([f"{policy.token_budget} tokens/{policy.budget_period}"] if policy.token_budget else []),
        *([f"models {','.join(policy.models)}"] if policy.models != EVERY_MODEL else []),
        *(["admin"] if policy.is_admin else []),
    ]
    return ", ".join(shown) or "-"


def day(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "-"
