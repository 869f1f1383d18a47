"""A key as the request path knows it: what opens it, until when, and who it makes the one who presents it."""

import hmac
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from gateway.access.keys.key import EVERY_MODEL, NOBODY, UNLIMITED, Allowance, Caller, Key
from gateway.access.keys.policy import ALLOWANCE_FIELDS
from gateway.access.schema import keys_table

NO_DIGEST = NOBODY.digest

# What a look-up needs of a row, in the order `cached_key` reads it.
COLUMNS = [
    keys_table.c[name]
    for name in (
        "public_id", "digest", "revoked_at", "previous_digest", "previous_until", "expires_at", "models", "is_admin",
        *ALLOWANCE_FIELDS,
    )
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class CachedKey:
    """Times are in Unix seconds. Until `previous_until` the secret before the last rotation opens it too."""

    caller: Caller
    digest: bytes
    expires_at: float = math.inf
    previous_digest: bytes = NO_DIGEST
    previous_until: float = 0.0

    def opens_with(self, digest: bytes, now: float) -> bool:
        """Compares with both secrets, in constant time, whether there are two or not."""
        is_current = hmac.compare_digest(digest, self.digest)
        is_previous = hmac.compare_digest(digest, self.previous_digest) and now < self.previous_until
        return (is_current or is_previous) and now < self.expires_at


UNKNOWN = CachedKey(Caller(""), NO_DIGEST)


def configured_key(key: Key) -> CachedKey:
    """A key of the environment or of the key file: without limits, and never an admin's."""
    return CachedKey(Caller(key.public_id), key.digest)


def cached_key(row: Any) -> CachedKey:
    """From a row of COLUMNS. Those that older versions wrote have no terms, so no limits."""
    public_id, digest, _revoked, previous_digest, previous_until, expires_at, models, is_admin, *allowed = row
    caller = Caller(public_id, allowance_of(*allowed), models_of(models), is_admin=bool(is_admin))
    if previous_digest is None and expires_at is None:
        return CachedKey(caller, digest)
    return CachedKey(
        caller,
        digest,
        unix(expires_at) if expires_at else math.inf,
        previous_digest or NO_DIGEST,
        unix(previous_until) if previous_until else 0.0,
    )


@lru_cache(maxsize=1024)  # most keys share their limits with many: among 100,000 that saves 20 MB
def allowance_of(*values: Any) -> Allowance:
    """Of ALLOWANCE_FIELDS, of which the period comes last."""
    return Allowance(*values) if any(values[:-1]) else UNLIMITED


@lru_cache(maxsize=1024)
def models_of(text: str | None) -> tuple[str, ...]:
    return EVERY_MODEL if text is None else msgspec.json.decode(text, type=tuple[str, ...])


def unix(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()
