"""`gateway cluster deploy|status|delete`: manages the rows of the backend `ray` on their clusters."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from gateway.cli.options import config_option
from gateway.cli.plan import plan
from gateway.cluster import deployment
from gateway.cluster.application import settings_of
from gateway.cluster.deployment import ApplicationStatus
from gateway.cluster.settings import BACKEND
from gateway.config import Config, ModelRow, load
from gateway.errors import OperatorError

DEPLOY_SECONDS = 900.0  # each node compiles the model first

address_option = click.option("--address", help="HOST:PORT of the cluster's head, or auto. Default: the row's own address.")
models_argument = click.argument("names", metavar="[MODEL]...", nargs=-1)


@click.group()
def cluster() -> None:
    """Run models on a Ray cluster, and plan its size."""


cluster.add_command(plan)


@cluster.command()
@config_option
@address_option
@models_argument
@click.option(
    "--timeout", "timeout_seconds", type=float, default=DEPLOY_SECONDS, show_default=True, help="Seconds to wait for it to run."
)
@click.option("--no-wait", is_flag=True, help="Return once the cluster has the new configuration; do not wait for it to run.")
@click.option(
    "--new-vectors",
    is_flag=True,
    help="Allow vectors unlike those the application has now. Gateways serve none of them until they are restarted.",
)
def deploy(  # noqa: PLR0913, PLR0917 - click's own way to give options
    path: str | None, address: str | None, names: tuple[str, ...], timeout_seconds: float, no_wait: bool, new_vectors: bool
) -> None:
    """Start models on their clusters, or update them. No request fails."""
    config = load(path)
    for row in _choose_models(config, names):
        with join_cluster(row, address):
            deployment.deploy(row, config, has_new_vectors=new_vectors)
            if no_wait:
                click.echo(f"{row.name}: the cluster has the new configuration")
                continue
            for status in deployment.wait_for_application(row, timeout_seconds=timeout_seconds):
                click.echo(f"{row.name}: {_format_status(status)}")


@cluster.command()
@config_option
@address_option
@models_argument
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(path: str | None, address: str | None, names: tuple[str, ...], as_json: bool) -> None:
    """Show the status of models on their clusters."""
    statuses = []
    for row in _choose_models(load(path), names):
        with join_cluster(row, address):
            statuses.append(deployment.status(row))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in statuses], ensure_ascii=False, indent=2))
        return
    for each in statuses:
        click.echo(f"{each.model} ({each.application}): {_format_status(each)}")


@cluster.command()
@config_option
@address_option
@click.argument("names", metavar="MODEL...", nargs=-1, required=True)
def delete(path: str | None, address: str | None, names: tuple[str, ...]) -> None:
    """Delete models from their clusters. Requests in flight finish first."""
    for row in _choose_models(load(path), names):
        with join_cluster(row, address):
            was_there = deployment.delete(row)
        click.echo(f"{row.name}: {'deleted' if was_there else deployment.NOT_DEPLOYED}")


def _choose_models(config: Config, names: tuple[str, ...]) -> list[ModelRow]:
    """The rows of these names, or all of backend `ray` if there are no names. Raises OperatorError if a name is not one of them."""
    rows = {row.name: row for row in config.models if row.backend == BACKEND}
    if unknown := [name for name in names if name not in rows]:
        raise OperatorError(f"no model of backend '{BACKEND}' is named '{unknown[0]}'")
    if not rows:
        raise OperatorError(f'no model has backend = "{BACKEND}"')
    return [rows[name] for name in names] or list(rows.values())


@contextmanager
def join_cluster(row: ModelRow, address: str | None) -> Iterator[None]:
    with deployment.join_cluster(address or settings_of(row).address):
        yield


def _format_status(status: ApplicationStatus) -> str:
    replicas = ", ".join(f"{count} {state.lower()}" for state, count in sorted(status.replicas.items()) if count)
    message = " ".join(status.message.split())
    return f"{status.state.lower()}" + (f"; replicas: {replicas}" if replicas else "") + (f"; {message}" if message else "")
