"""The keys in force, as requests see them: a snapshot that is replaced when the store or the key file changes.

A look-up is a few hashes and a dictionary; no request waits for a database. A change shows within `REFRESH_SECONDS`, so a revoked
key stops within 2 s in every process. While the store cannot be read the last snapshot goes on, for `max_snapshot_age_seconds`.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.access.keys import (
    ANONYMOUS,
    MIN_PLAIN_KEY_CHARS,
    Caller,
    Key,
    candidate_ids,
    digest_of,
    masked,
    plain_key,
)
from gateway.access.known_key import UNKNOWN, KnownKey, configured_key
from gateway.access.store import KeyStore, Reading, Revision
from gateway.access.worker import Worker
from gateway.config import AuthSettings, secret_value
from gateway.errors import ConfigurationError, InvalidKey, OperatorError, StoreUnavailable
from gateway.log import get_logger

REFRESH_SECONDS = 0.5

log = get_logger()

Keys = dict[str, KnownKey]


class Keyring:
    """Configured keys and stored ones, together. Made with `store` None only where nobody needs a key."""

    def __init__(
        self,
        settings: AuthSettings,
        store: KeyStore | None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.wall_clock = wall_clock
        self.stored: Keys = {}  # neither is ever changed, only replaced: a reader sees the old one or the new one
        self.configured: Keys = {}
        self.revision: Revision | None = None  # of the store, when `stored` was read
        self.file_time: float | None = None  # of the key file, when `configured` was read
        self.read_at = clock()
        self.task: asyncio.Task[None] | None = None
        # A thread of its own: a revocation must not wait for whatever else blocks in the loop's common threads.
        self.worker = Worker("keyring")

    async def start(self) -> None:
        """Reads all keys once, then keeps watch. Raises OperatorError where they cannot be read."""
        if self.store is None:
            return
        await self.worker.run(self.store.open)
        await self.worker.run(self.refresh)
        self.task = asyncio.create_task(self.watch(), name="keyring")

    def caller(self, text: str) -> Caller:
        """Who `text` is the key of. Raises InvalidKey, or StoreUnavailable when the snapshot is too old to be believed."""
        if self.store is None:
            return ANONYMOUS
        if self.clock() - self.read_at > self.settings.max_snapshot_age_seconds:
            raise StoreUnavailable
        digest, now = digest_of(text), self.wall_clock()
        for public_id in candidate_ids(text):
            known = self.stored.get(public_id) or self.configured.get(public_id) or UNKNOWN
            if known.opens_with(digest, now):
                return known.caller
        raise InvalidKey(f"Incorrect API key provided: {masked(text)}.")

    @property
    def is_empty(self) -> bool:
        return self.store is not None and not self.stored and not self.configured

    @property
    def is_watching(self) -> bool:
        """Whether changes are noticed; False means that the watch died, which `/livez` tells."""
        return self.store is None or (self.task is not None and not self.task.done())

    async def watch(self) -> None:
        was_away = False
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.worker.run(self.refresh)
                was_away = False
            except OperatorError as error:
                if not was_away:
                    log.warning("key_store_unavailable", reason=str(error))
                was_away = True

    def refresh(self) -> None:
        """Reads what changed: one key among 100,000 costs a copied dictionary, not a second of reading all."""
        if self.store is None:
            return
        started = self.clock()
        reading = self.store.read(self.revision)
        if reading is not None:
            self.stored, self.revision = after(self.stored, reading), reading.revision
        file_time = changed_at(self.settings.keys_file)
        if file_time != self.file_time:
            self.configured = {key.public_id: configured_key(key) for key in configured_keys(self.settings)}
            self.file_time = file_time
        self.read_at = started

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        if self.store is not None:
            self.store.close()
        self.worker.close()


def after(stored: Keys, reading: Reading) -> Keys:
    if reading.is_whole:
        return reading.keys
    changed = {**stored, **reading.keys}
    for public_id in reading.gone:
        changed.pop(public_id, None)
    return changed


def configured_keys(settings: AuthSettings) -> list[Key]:
    """The keys of the environment and of the key file. Raises ConfigurationError for one that is too short, saying which line."""
    keys: list[Key] = []
    if settings.keys is not None:
        origin = settings.keys.env or settings.keys.file or ""
        keys += checked(secret_value(settings.keys).replace(",", "\n").splitlines(), origin)
    if settings.keys_file is not None:
        try:
            lines = Path(settings.keys_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"auth.keys_file: {settings.keys_file} cannot be read") from None
        keys += checked(lines, settings.keys_file)
    return keys


def checked(lines: Iterable[str], origin: str) -> Iterable[Key]:
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if len(text) < MIN_PLAIN_KEY_CHARS or not text.isascii() or not text.isprintable() or " " in text:
            raise ConfigurationError(
                f"key {number} of {origin} is not usable: it must be at least {MIN_PLAIN_KEY_CHARS}"
                " printable ASCII characters without spaces"
            )
        yield plain_key(text)


def changed_at(path: str | None) -> float:
    try:
        return Path(path).stat().st_mtime_ns if path else 0
    except OSError:
        return -1  # a file that went away is a change too; reading it then says so
