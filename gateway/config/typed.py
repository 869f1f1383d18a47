"""Checks a table from a file or the environment against a Struct. Errors name the setting and the closest known name."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from gateway.errors import ConfigurationError

Typed = TypeVar("Typed", bound=msgspec.Struct)


def convert(table: Mapping[str, Any], struct: type[Typed], *, where: str) -> Typed:
    """Converts `table` to `struct`; `where` is the table's name in messages.

    Raises ConfigurationError for an unknown name, a wrong type or a value out of range.
    """
    refuse_unknown(table, (field.encode_name for field in msgspec.structs.fields(struct)), where=where)
    try:
        return msgspec.convert(table, struct)
    except msgspec.ValidationError as error:
        raise ConfigurationError(readable(error, where=where) + _name_choices(error, struct)) from None


def _name_choices(error: msgspec.ValidationError, struct: type[msgspec.Struct]) -> str:
    field = re.search(r"\$\.(\w+)`?$", str(error))
    return name_choices(error, get_type_hints(struct).get(field[1])) if field else ""


def name_choices(error: msgspec.ValidationError, hint: Any) -> str:
    """Where a value is none of a list of choices, that list, to add to the error: msgspec does not name them."""
    is_choice = get_origin(hint) is Literal and "enum value" in str(error)
    return f": choose from {', '.join(map(repr, get_args(hint)))}" if is_choice else ""


def refuse_unknown(names: Iterable[str], known: Iterable[str], *, where: str) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(sorted(known))}"
            raise ConfigurationError(f"unknown setting '{_join_names(where, name)}': {hint}")


def readable(error: msgspec.ValidationError, *, where: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.port`", or "- at `key` in `$.table`", with the setting's full name first."""
    reason, _, path = str(error).replace("`key` in ", "").partition(" - at ")
    inner = re.sub(r"^\$\.?", "", path.strip("`"))
    return f"{_join_names(where, inner)}: {reason.replace('`', '')}".replace(": E", ": e", 1)


def _join_names(where: str, name: str) -> str:
    return ".".join(part for part in (where, name) if part)
