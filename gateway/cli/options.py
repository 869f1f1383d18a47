"""Options that several commands share."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

config_option = click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(),
    help="The configuration file. Default: $GATEWAY_CONFIG, else ./gateway.toml.",
)


def row_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options for the settings of a row whose model is looked at: `revision`, `hub_token` and `trust_remote_code`."""

    @wraps(command)
    def with_token(*arguments: Any, token_env: str | None, token_file: str | None, **options: Any) -> Any:
        if token_env is not None and token_file is not None:
            raise click.UsageError("--token-env and --token-file: one of them")
        place = {"env": token_env} if token_env is not None else {"file": token_file} if token_file is not None else None
        return command(*arguments, hub_token=place, **options)

    for option in (
        click.option("--revision", metavar="COMMIT", help="A commit, branch or tag on the hub. Default: the newest of main."),
        click.option("--token-env", metavar="NAME", help="The variable that holds a token of the hub, for gated models."),
        click.option("--token-file", metavar="FILE", help="The file that holds a token of the hub."),
        click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model; it needs --revision."),
    ):
        with_token = option(with_token)
    return with_token
