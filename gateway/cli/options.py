"""Options that several commands share."""

import click

config_option = click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(),
    help="The configuration file. Default: $GATEWAY_CONFIG, else ./gateway.toml.",
)
