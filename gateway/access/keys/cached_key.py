"""A key in the in-memory snapshot: the digests that match it, its expiry, and the caller it stands for."""

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

# The columns that a look-up needs, in the order that `cached_key` reads.
COLUMNS = [
    keys_table.c[name]
    for name in (
        "public_id", "digest", "revoked_at", "previous_digest", "previous_until", "expires_at", "models", "is_admin",
        *ALLOWANCE_FIELDS,
    )
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class CachedKey:
    """Times are in Unix seconds. Until `previous_until` the secret from before the last rotation matches too."""

    caller: Caller
    digest: bytes
    expires_at: float = math.inf
    previous_digest: bytes = NO_DIGEST
    previous_until: float = 0.0

    def opens_with(self, digest: bytes, now: float) -> bool:
        """Compares with both secrets in constant time, even if there is only one."""
        is_current = hmac.compare_digest(digest, self.digest)
        is_previous = hmac.compare_digest(digest, self.previous_digest) and now < self.previous_until
        return (is_current or is_previous) and now < self.expires_at


UNKNOWN = CachedKey(Caller(""), NO_DIGEST)


def configured_key(key: Key) -> CachedKey:
    """A key from the environment or the key file: without limits of its own, and never an admin's."""
    return CachedKey(Caller(key.public_id), key.digest)


def cached_key(row: Any) -> CachedKey:
    """Makes a key from a row of COLUMNS. A row that an older version wrote has no limits."""
    public_id, digest, _revoked, previous_digest, previous_until, expires_at, models, is_admin, *allowed = row
    caller = Caller(public_id, allowance_of(*allowed), _models_of(models), is_admin=bool(is_admin))
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
    """Takes the values of ALLOWANCE_FIELDS, the period last. A period without any limit is UNLIMITED."""
    return Allowance(*values) if any(values[:-1]) else UNLIMITED


@lru_cache(maxsize=1024)
def _models_of(text: str | None) -> tuple[str, ...]:
    return EVERY_MODEL if text is None else msgspec.json.decode(text, type=tuple[str, ...])


def unix(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()
