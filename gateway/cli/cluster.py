"""`gateway cluster …`: beyond one machine."""

import click

from gateway.cli.plan import plan


@click.group()
def cluster() -> None:
    """Serve models on a cluster, and plan for one."""


cluster.add_command(plan)
