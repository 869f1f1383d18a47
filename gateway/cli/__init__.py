"""The command line. An error that the operator must fix is one line on standard error and exit code 2, never a stack trace."""

import gc
import sys
from importlib import import_module
from typing import Any

import click

from gateway import __version__, log
from gateway.errors import OperatorError

EXIT_WRONG = 2
COMMANDS = (
    "batches",
    "bench",
    "cluster",
    "config",
    "embed",
    "healthcheck",
    "keys",
    "models",
    "serve",
    "tiktoken",
)  # Each in a module of its name


class LazyGroup(click.Group):
    """Imports a command only when it runs: `healthcheck` runs every few seconds and needs none of the others' imports."""

    def __init__(self, *arguments: Any, lazy: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        gc.disable()  # what imports make stays: collections among it take a fifth of a start's CPU, and free nothing
        try:
            command: click.Command = getattr(import_module(f"gateway.cli.{cmd_name}"), cmd_name)
        except ModuleNotFoundError as error:  # an image that only serves contains only what serving needs
            raise OperatorError(f"`gateway {cmd_name}` needs the package {error.name}, which is not installed here") from None
        finally:
            gc.enable()
        return command


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def cli() -> None:
    """An OpenAI-compatible embeddings gateway."""
    log.configure(level="warning", line_format="console")  # a command prints its output; `serve` logs as configured


def main() -> None:
    try:
        cli(standalone_mode=False)
    except OperatorError as error:
        click.echo(f"gateway: {error}", err=True)
        sys.exit(EXIT_WRONG)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)  # as a shell reports Ctrl-C
