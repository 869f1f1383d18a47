"""The command-line options for a key's policy, and their conversion to the fields of KeyPolicy."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, get_args

import click

from gateway.access.keys.key import MAX_NUMBER, BudgetPeriod
from gateway.access.keys.policy import description_of
from gateway.access.usage.period import duration
from gateway.errors import OperatorError

NOTHING = {"none", "never", "unlimited"}
BUDGET = re.compile(rf"([0-9]{{1,15}})/({'|'.join(get_args(BudgetPeriod))})")
NUMBERS = {
    "rpm": "requests_per_minute",
    "rpm_burst": "requests_burst",
    "tpm": "tokens_per_minute",
    "tpm_burst": "tokens_burst",
    "concurrency": "max_concurrent_requests",
}

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = (
    click.option("--name", help=description_of("name")),
    click.option("--models", metavar="GLOBS", help=f"{description_of('models')} Separated by commas: 'all-*,bge-m3'."),
    *(click.option(f"--{option.replace('_', '-')}", metavar="N", help=description_of(term)) for option, term in NUMBERS.items()),
    click.option("--budget", metavar="N/PERIOD", help=f"{description_of('token_budget')} As 1000000/day."),
    click.option("--expires", metavar="DURATION", help="From now: 12h, 30d."),
    click.option("--admin/--no-admin", default=None, help=description_of("is_admin")),
    click.option(
        "--metadata",
        metavar="KEY=VALUE",
        multiple=True,
        help=f"{description_of('metadata')} Repeatable; replaces those there were.",
    ),
)


def term_options(command: Command) -> Command:
    """Adds an option for each field of the policy; 'none' means no limit."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def policy_options(options: dict[str, Any]) -> dict[str, Any]:
    """The fields that were given, by their names in KeyPolicy. Raises OperatorError, which names the option that is wrong."""
    table: dict[str, Any] = {}
    for option, term in NUMBERS.items():
        if options[option] is not None:
            table[term] = number(f"--{option.replace('_', '-')}", options[option])
    if options["name"] is not None:
        table["name"] = options["name"]
    if options["models"] is not None:
        table["models"] = [glob.strip() for glob in options["models"].split(",")]
    if options["budget"] is not None:
        table |= budget(options["budget"])
    if options["expires"] is not None:
        table["expires_at"] = moment(options["expires"])
    if options["admin"] is not None:
        table["is_admin"] = options["admin"]
    if options["metadata"]:
        pairs = [text for text in options["metadata"] if text not in NOTHING]
        table["metadata"] = dict(pair("--metadata", text) for text in pairs)
    return table


def number(option: str, text: str) -> int | None:
    if text in NOTHING:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_NUMBER)) and 1 <= int(text) <= MAX_NUMBER):
        raise OperatorError(f"{option}: '{text[:40]}' is neither a number from 1 to {MAX_NUMBER} nor 'none'")
    return int(text)


def budget(text: str) -> dict[str, Any]:
    if text in NOTHING:
        return {"token_budget": None}
    shape = BUDGET.fullmatch(text)
    if shape is None or int(shape[1]) == 0:
        raise OperatorError(
            f"--budget: '{text[:40]}' is neither tokens a period, such as 1000000/day or 20000000/month, nor 'none'"
        )
    return {"token_budget": int(shape[1]), "budget_period": shape[2]}


def moment(text: str) -> str | None:
    """The time after that duration from now, in ISO 8601; None for never."""
    if text in NOTHING:
        return None
    after = span("--expires", text)
    if not after:
        raise OperatorError(f"--expires: a key that ends after '{text[:40]}' never works")
    return (datetime.now(UTC) + after).isoformat(timespec="seconds")


def span(option: str, text: str) -> timedelta:
    try:
        return duration(text)
    except ValueError as error:
        raise OperatorError(f"{option}: {error}") from None


def pair(option: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise OperatorError(f"{option}: '{text[:40]}' is no KEY=VALUE")
    return name, value
