"""Chooses the store of rate-limit state: this process, a Redis server for several gateways, or both in turn."""

from importlib.util import find_spec

from gateway.access.limits.fallback_store import FallbackRateLimitStore
from gateway.access.limits.limiter import Limiter
from gateway.access.limits.local_store import LocalRateLimitStore, RateLimitStore
from gateway.access.outage import StoreOutage
from gateway.config import LimitSettings, secret_value
from gateway.errors import ConfigurationError
from gateway.metrics import Metrics

WITHOUT_REDIS = {
    "local": "each gateway applies the whole limit by itself",
    "allow": "requests are served WITHOUT limits",
    "deny": "requests of keys with limits are refused",
}


def build_limiter(settings: LimitSettings, metrics: Metrics, *, before: Limiter | None = None) -> Limiter:
    """Reuses the store of `before` if the store's settings are the same: what callers used survives a change of their limits.

    Raises ConfigurationError.
    """
    if before is not None and _store_key(before.settings) == _store_key(settings):
        return Limiter(settings, before.store, metrics, before.queue)
    return Limiter(settings, _build_store(settings, metrics), metrics, before.queue if before is not None else None)


def _build_store(settings: LimitSettings, metrics: Metrics) -> RateLimitStore:
    if settings.redis_url is None:
        return LocalRateLimitStore()
    if find_spec("hiredis") is None:
        raise ConfigurationError("limits.redis_url needs the extra redis: pip install hiredis")
    from gateway.access.limits.redis_connection import address_of  # noqa: PLC0415 - there only with the extra
    from gateway.access.limits.redis_store import RedisRateLimitStore  # noqa: PLC0415

    address = address_of(secret_value(settings.redis_url))
    outage = StoreOutage("limiter", hint=WITHOUT_REDIS[settings.on_limiter_failure], show=metrics.access.limiter_up.set)
    shared = RedisRateLimitStore(address, timeout_seconds=settings.redis_timeout_seconds, outage_log=outage)
    if settings.on_limiter_failure != "local":
        return shared
    return FallbackRateLimitStore(shared, LocalRateLimitStore(), on_local=metrics.access.limiter_failures.labels("local").inc)


def _store_key(settings: LimitSettings) -> object:
    """The settings that a store is built from."""
    return settings.redis_url, settings.redis_timeout_seconds, settings.redis_url and settings.on_limiter_failure
