"""`gateway keys`: makes, limits, watches, rotates and revokes API keys.

A key is shown once; only a hash of it is stored.
"""

import click

from gateway.cli.keys.change import limit, revoke, rotate
from gateway.cli.keys.create import create
from gateway.cli.keys.show import audit, list_keys, show
from gateway.cli.keys.usage import usage


@click.group()
def keys() -> None:
    """Make, limit, watch, rotate and revoke API keys."""


for command in (create, list_keys, show, limit, rotate, revoke, usage, audit):
    keys.add_command(command)
