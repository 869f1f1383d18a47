"""API keys: how a key is generated, recognised and masked.

The form is `sk-gw-<public id>-<secret>`, both parts base62. A secret is 256 random bits, so the key's plain SHA-256 is stored and
compared. A slow hash is for passwords, which people choose; here it would be a way to overload us.
"""

import hashlib
import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from msgspec import Meta, Struct

PREFIX = "sk-gw-"
BASE62 = string.digits + string.ascii_letters
PUBLIC_ID_CHARS = 10  # 59 bits: a million keys collide with a chance of one in a million
SECRET_CHARS = 43  # 62 ** 43 > 2 ** 256
MIN_PLAIN_KEY_CHARS = 24
MADE_SHAPE = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{PUBLIC_ID_CHARS}}}-[0-9A-Za-z]{{{SECRET_CHARS}}}")  # exactly as generated
OWN_SHAPE = re.compile(rf"{PREFIX}([0-9A-Za-z]{{1,64}})-[0-9A-Za-z]+")

MAX_NUMBER = 10**12  # the largest value of a limit

Number = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
BudgetPeriod = Literal["day", "month"]


@dataclass(frozen=True, slots=True)
class Key:
    """The stored part of a key: `digest` is the SHA-256 of the whole key."""

    public_id: str
    digest: bytes


def limit(description: str, *, since: int) -> Meta:
    """Describes a field of Allowance: its help text, and the step of the store's schema that added its column."""
    return Meta(description=description, extra={"since": since})


class Allowance(Struct, frozen=True):
    """How much a key may use; None is without limit. For a burst of None see `gateway.access.limits.gcra`.

    The only declaration: the store's columns, the options of `gateway keys` and the admin API's fields are generated from it.
    """

    requests_per_minute: Annotated[Number | None, limit("Requests a minute.", since=2)] = None
    requests_burst: Annotated[
        Number | None, limit("Requests at once after a rest; a sixth of a minute's if not given.", since=2)
    ] = None
    tokens_per_minute: Annotated[Number | None, limit("Tokens a minute.", since=2)] = None
    tokens_burst: Annotated[
        Number | None,
        limit(
            "Tokens at once after a rest, and at most in one request. If not given: a sixth of a minute's, or 300,000 (or the whole"
            " limit) if that is more; and one request may take up to a whole minute's.",
            since=2,
        ),
    ] = None
    max_concurrent_requests: Annotated[Number | None, limit("Requests under way at once.", since=2)] = None
    token_budget: Annotated[Number | None, limit("Tokens a day or a month.", since=2)] = None
    budget_period: Annotated[BudgetPeriod, limit("Whether the budget is of a day or of a month, in UTC.", since=2)] = "month"


UNLIMITED = Allowance()
EVERY_MODEL = ("*",)


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request, by its key's public id, and what it may use. `models` are globs over model names."""

    public_id: str
    allowance: Allowance = UNLIMITED
    models: tuple[str, ...] = EVERY_MODEL
    is_admin: bool = False

    def may_use(self, names: Iterable[str]) -> bool:
        """Whether the key may use the model that has these names (its own and its aliases)."""
        return self.models == EVERY_MODEL or any(fnmatchcase(name, glob) for glob in self.models for name in names)


NOBODY = Key("", bytes(hashlib.sha256().digest_size))  # stands in for an unknown id, so that both comparisons take the same time


def new_key(public_id: str | None = None) -> tuple[str, Key]:
    """Generates a key; with `public_id`, a new secret for that key. Returns the full text, for its owner, and the stored part."""
    public_id = public_id or "".join(secrets.choice(BASE62) for _ in range(PUBLIC_ID_CHARS))
    text = f"{PREFIX}{public_id}-" + "".join(secrets.choice(BASE62) for _ in range(SECRET_CHARS))
    return text, Key(public_id, digest_of(text))


def plain_key(text: str) -> Key:
    """The stored part of a key that was not generated here. Its id has the first 8 hex digits of its digest."""
    digest = digest_of(text)
    return Key(_plain_id(digest), digest)


def _plain_id(digest: bytes) -> str:
    return f"env-{digest[:4].hex()}"


def digest_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def candidate_ids(text: str, digest: bytes | None = None) -> list[str]:
    """Returns the public ids that a presented key may have: the one written in it, and the one of a plain key with its digest."""
    shape = OWN_SHAPE.fullmatch(text)
    return [*([shape[1]] if shape else []), _plain_id(digest or digest_of(text))]


def mask(text: str) -> str:
    """Masks a presented key for messages: `sk-gw-ab***yz`, and `***` for a short one."""
    return f"{text[:8]}***{text[-2:]}" if len(text) >= MIN_PLAIN_KEY_CHARS and text.isascii() and text.isprintable() else "***"
