"""The command line. What an operator must mend is one line on standard error and exit code 2, never a stack trace."""

import sys

import click

from gateway import __version__, log
from gateway.cli.bench import bench
from gateway.cli.cluster import cluster
from gateway.cli.config import config
from gateway.cli.keys import keys
from gateway.cli.models import models
from gateway.cli.serve import serve
from gateway.errors import OperatorError

EXIT_WRONG = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def cli() -> None:
    """An OpenAI-compatible embeddings gateway."""
    log.configure(level="warning", line_format="console")  # a command's own words are its output; `serve` logs as configured


for command in (serve, keys, models, config, cluster, bench):
    cli.add_command(command)


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
