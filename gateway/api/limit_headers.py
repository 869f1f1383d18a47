"""OpenAI's rate-limit headers: the limit per minute, what remains at this moment, and when the full burst is available again.

We add one of our own, the burst: how much may be sent at once after a pause.
"""

from gateway.access.limits.gcra import SECOND, Rate
from gateway.access.limits.lease import Lease
from gateway.api.response_headers import LIMITED_KINDS, LIMITS
from gateway.errors import duration

Headers = list[tuple[bytes, bytes]]

REQUESTS, TOKENS = (tuple(header.name.encode() for header in LIMITS if header.name.endswith(f"-{kind}")) for kind in LIMITED_KINDS)


def limit_headers(lease: Lease) -> Headers:
    """Returns the headers of the caller's limits; none if their state is unknown because the store is unavailable."""
    state, limits = lease.state, lease.limits
    if state is None:
        return []
    requests = _rate_headers(REQUESTS, limits.requests, state.requests_debt) if limits.requests is not None else []
    return requests + (_rate_headers(TOKENS, limits.tokens, state.tokens_debt) if limits.tokens is not None else [])


def _rate_headers(names: tuple[bytes, ...], rate: Rate, debt: int) -> Headers:
    values = (str(rate.per_minute), str(rate.burst), str(rate.remaining(debt)), duration(rate.reset(debt) / SECOND))
    return [(name, value.encode()) for name, value in zip(names, values, strict=True)]
