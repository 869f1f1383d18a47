"""`gateway config check --connect`: connects to the key store, Redis, each address of other servers, and Ray clusters.

It checks all at once, each within DEADLINE_SECONDS, and as the gateway itself uses them. It makes and changes nothing, and
no line contains a secret.
"""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import sqlalchemy as sql

from gateway.access.database import Database
from gateway.access.worker import in_thread
from gateway.app import Gateway
from gateway.config import Secret, secret_value
from gateway.embedding.backend import ConnectionCheck
from gateway.errors import GatewayError, OperatorError

DEADLINE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _ConnectOutcome:
    what: str
    detail: str
    is_ok: bool

    def __str__(self) -> str:
        if not self.is_ok:
            return f"{self.what}: FAILED: {self.detail}"
        return f"{self.what}: ok{f' ({self.detail})' if self.detail else ''}"


async def connect(gateway: Gateway) -> list[_ConnectOutcome]:
    """The outcome of each check, in the order of the configuration."""
    return await asyncio.gather(*map(outcome_of, _checks_of(gateway)))


async def outcome_of(check: ConnectionCheck) -> _ConnectOutcome:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return _ConnectOutcome(check.what, await check.ask(), is_ok=True)
    except TimeoutError:
        return _ConnectOutcome(check.what, f"no answer within {DEADLINE_SECONDS:g} seconds", is_ok=False)
    except (OperatorError, GatewayError) as error:
        return _ConnectOutcome(check.what, str(error), is_ok=False)


def _checks_of(gateway: Gateway) -> Iterator[ConnectionCheck]:
    for database in gateway.access_control.databases:
        yield ConnectionCheck(f"key store {database.label}", partial(in_thread, partial(_asked_store, database)))
    limits = gateway.config.limits
    if limits.redis_url is not None:
        yield ConnectionCheck("limits.redis_url", partial(_asked_redis, limits.redis_url, limits.redis_timeout_seconds))
    for row in gateway.config.models:
        yield from gateway.bind(row).connections()


def _asked_store(database: Database) -> str:
    """Reads from the store. If its file is missing, only checks that the folder is writable: the start makes the file.

    Raises OperatorError if the store cannot be used.
    """
    if database.path is not None and not database.path.exists():
        folder = _existing_parent(database.path)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OperatorError(f"{folder} cannot be written by this user")
        return "made at the first start"
    try:
        with database.read() as connection:
            connection.execute(sql.text("SELECT 1"))
    finally:
        database.close()
    return ""


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if parent.exists())


async def _asked_redis(place: Secret, timeout_seconds: float) -> str:
    """Loads the rate limiter's script, as a gateway does at its start, so that an account that may not run it shows here.

    Raises OperatorError if Redis cannot be used.
    """
    from gateway.access.limits.redis_connection import address_of  # noqa: PLC0415 - there only with the extra
    from gateway.access.limits.redis_store import RedisRateLimitStore  # noqa: PLC0415

    limit_store = RedisRateLimitStore(address_of(secret_value(place)), timeout_seconds=timeout_seconds)
    try:
        await limit_store.connect()
        if limit_store.outage is not None:
            raise OperatorError(limit_store.outage)
    finally:
        await limit_store.close()
    return ""
