"""Query parameters, declared once: handlers read them, and /openapi.json describes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gateway.access.usage.period import DURATION_PATTERN, since
from gateway.errors import InvalidValue

Query = Mapping[str, str]
Choice = TypeVar("Choice", bound=str)


@dataclass(frozen=True, slots=True)
class TextParameter:
    name: str
    description: str

    def read(self, query: Query) -> str | None:
        """An empty one is as none."""
        return query.get(self.name) or None

    def describe(self) -> dict[str, Any]:
        return described(self.name, {"type": "string"}, self.description)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerParameter:
    name: str
    default: int
    least: int = 1
    most: int
    description: str

    def read(self, query: Query) -> int:
        """Raises InvalidValue."""
        given = query.get(self.name, str(self.default))
        is_digits = given.isascii() and given.isdigit() and len(given) <= len(str(self.most))
        if not (is_digits and self.least <= int(given) <= self.most):
            raise InvalidValue(
                f"Invalid value for '{self.name}': expected an integer from {self.least} to {self.most}.", param=self.name
            )
        return int(given)

    def describe(self) -> dict[str, Any]:
        schema = {"type": "integer", "minimum": self.least, "maximum": self.most, "default": self.default}
        return described(self.name, schema, self.description)


@dataclass(frozen=True, slots=True)
class ChoiceParameter(Generic[Choice]):
    name: str
    default: Choice
    choices: tuple[Choice, ...]
    description: str

    def read(self, query: Query) -> Choice:
        """Raises InvalidValue."""
        given = query.get(self.name, self.default)
        for choice in self.choices:
            if given == choice:
                return choice
        raise InvalidValue(f"Invalid value for '{self.name}': choose from {', '.join(self.choices)}.", param=self.name)

    def describe(self) -> dict[str, Any]:
        return described(self.name, {"enum": list(self.choices), "default": self.default}, self.description)


@dataclass(frozen=True, slots=True)
class SinceParameter:
    """A duration before now."""

    name: str
    default: str
    description: str

    def read(self, query: Query) -> str:
        """Returns the hour in which the duration begins. Raises InvalidValue."""
        try:
            return since(query.get(self.name, self.default))
        except ValueError as error:
            raise InvalidValue(f"Invalid value for '{self.name}': {error}.", param=self.name) from None

    def describe(self) -> dict[str, Any]:
        return described(self.name, {"type": "string", "pattern": DURATION_PATTERN, "default": self.default}, self.description)


def described(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}
