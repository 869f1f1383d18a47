"""The parts of settings: tables, ranges, and references to secrets."""

from functools import partial
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from msgspec import Meta, Struct

KB = 1024
MB = 1024 * KB
GB = 1024 * MB
MINUTES = 60
DAY = 24 * 60 * MINUTES
YEAR = 365 * DAY
positive = partial(Meta, gt=0, le=YEAR)
count = partial(Meta, ge=1)
Most = Annotated[int, Meta(ge=1, le=100_000_000)]


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration."""


class Secret(Settings, frozen=True):
    """A reference to a secret: `{ env = "NAME" }` or `{ file = "PATH" }`. The configuration never contains the secret itself."""

    env: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if (self.env is None) == (self.file is None):
            raise ValueError('a secret is written { env = "NAME" } or { file = "PATH" }')


def has_password(url: str) -> bool:
    """Whether a URL contains a password, before its host or among its parameters. True if it cannot be parsed."""
    try:
        parts = urlsplit(url)
        return parts.password is not None or "password" in parse_qs(parts.query)
    except ValueError:
        return True
