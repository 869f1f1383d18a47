"""The keys in force, as requests see them: a snapshot that is replaced when the store or the key file changes.

A look-up is a few hashes and a dictionary; no request with a known key waits for a database. A change shows within
`REFRESH_SECONDS`, so a revoked key stops within 2 s in every process; a key that nobody knows makes the store be asked once more
before it is refused. While the store cannot be read the last snapshot goes on, for `max_snapshot_age_seconds`; a file keeps it, so
that a gateway which starts meanwhile has it too.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.access.keys.cached_key import UNKNOWN, CachedKey, configured_key
from gateway.access.keys.key import (
    MADE_SHAPE,
    MIN_PLAIN_KEY_CHARS,
    Caller,
    Key,
    candidate_ids,
    digest_of,
    mask,
    plain_key,
)
from gateway.access.keys.snapshot_file import Snapshot, SnapshotFile, UnusableSnapshot
from gateway.access.keys.snapshot_writer import SnapshotWriter
from gateway.access.keys.store import KeyChanges, KeyStore, Revision
from gateway.access.keys.unknown_keys import UnknownKeyLookup
from gateway.access.outage import StoreOutage
from gateway.access.worker import WorkerThread
from gateway.background import BackgroundTask
from gateway.config import QUOTES, AuthSettings, NotUTF8, read_text, reason_of, secret_value
from gateway.errors import ConfigurationError, InvalidKey, OperatorError, StoreAway, StoreUnavailable
from gateway.log import get_logger

REFRESH_SECONDS = 0.5
OUTAGE_HINT = "the keys known last go on for auth.max_snapshot_age_seconds; then 503"

log = get_logger()

Keys = dict[str, CachedKey]


class KeySnapshot:
    """Configured keys and stored ones, together."""

    def __init__(  # noqa: PLR0913 - where keys are from, two clocks, and what outlives the store
        self,
        settings: AuthSettings,
        store: KeyStore,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        *,
        outage: StoreOutage | None = None,
        file: SnapshotFile | None = None,
    ) -> None:
        """`outage` hears when the keys cannot be read; without a `file` nothing is kept on disk."""
        self.settings = settings
        self.store = store
        self.clock = clock
        self.wall_clock = wall_clock
        self.outage = outage or StoreOutage("key_store", hint=OUTAGE_HINT, show=lambda _: None, clock=clock)
        self.file = file
        self.stored: Keys = {}  # neither is ever changed, only replaced: a reader sees the old one or the new one
        self.configured: Keys = {}
        self.revision: Revision | None = None  # of the store, when `stored` was read
        self.file_time: float | None = None  # of the key file, when `configured` was read
        self.read_at = clock()
        self.is_opened = True  # False where the store was unavailable at the start: its tables may be another version's
        self.unknown = UnknownKeyLookup(self.look_again, clock)
        self.background = BackgroundTask("keys", self.watch)
        # A thread of its own: a revocation must not wait for whatever else blocks in the loop's common threads.
        self.worker = WorkerThread("keyring")
        self.writer = SnapshotWriter(file, max_age_seconds=settings.max_snapshot_age_seconds, clock=clock) if file else None

    async def start(self) -> None:
        """Reads all keys once, then keeps watch. Raises OperatorError where neither the store nor the file has them."""
        try:
            await self.worker.run(self.store.open)
            await self.worker.run(self.refresh)
        except StoreAway as error:
            if not await self.worker.run(self.restore):
                raise
            self.outage.begin(str(error))
        self.background.start()

    async def authenticate(self, text: str) -> Caller:
        """As `caller`; the store is asked once more about a key that could be one of its own and that nobody knows."""
        try:
            return self.caller(text)
        except InvalidKey:
            digest = digest_of(text)
            if self.is_away or MADE_SHAPE.fullmatch(text) is None or self.unknown.is_remembered(digest):
                raise
            if not await self.unknown.look():
                raise
        try:
            return self.caller(text)
        except InvalidKey:
            self.unknown.remember(digest)
            raise

    def caller(self, text: str) -> Caller:
        """Who `text` is the key of. Raises InvalidKey, or StoreUnavailable when the snapshot is too old to be believed."""
        if self.clock() - self.read_at > self.settings.max_snapshot_age_seconds:
            raise StoreUnavailable
        digest, now = digest_of(text), self.wall_clock()
        for public_id in candidate_ids(text):
            known = self.stored.get(public_id) or self.configured.get(public_id) or UNKNOWN
            if known.opens_with(digest, now):
                return known.caller
        raise InvalidKey(f"Incorrect API key provided: {mask(text)}.")

    @property
    def is_empty(self) -> bool:
        return not self.stored and not self.configured

    @property
    def is_watching(self) -> bool:
        """Whether changes are noticed; False means that the watch died, which `/livez` tells."""
        return self.background.is_running

    @property
    def is_kept(self) -> bool:
        """False where what writes the file died, and what is known is no longer kept."""
        return self.writer is None or self.writer.background.death is None

    @property
    def is_away(self) -> bool:
        """Whether the store could not be read when that was last tried."""
        return self.outage.reason is not None

    @property
    def age_seconds(self) -> float:
        """How old what is known is."""
        return max(0.0, self.clock() - self.read_at)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            if await self.renew() and self.writer is not None:
                self.writer.offer(Snapshot(self.stored, self.wall_clock() - self.age_seconds))

    async def renew(self) -> bool:
        """Reads what changed up to now; whether the store could be read. Whoever has changed a key calls it before saying so."""
        return await self.read_with(self.refresh)

    async def look_again(self) -> bool:
        return await self.read_with(self.begin_refresh)

    async def read_with(self, read: Callable[[], None]) -> bool:
        try:
            await self.worker.run(read)
        except OperatorError as error:
            self.outage.begin(str(error))
            return False
        self.outage.end()
        return True

    def begin_refresh(self) -> None:
        self.unknown.begun()
        self.refresh()

    def refresh(self) -> None:
        """Reads what changed: one key among 100,000 costs a copied dictionary, not a second of reading all."""
        started = self.clock()
        if not self.is_opened:
            self.store.open()
            self.is_opened = True
        changes = self.store.read(self.revision)
        if changes is not None:
            self.stored, self.revision = apply_changes(self.stored, changes), changes.revision
        self.reload_configured()
        self.read_at = started

    def reload_configured(self) -> None:
        file_time = modified_at(self.settings.keys_file)
        if file_time != self.file_time:
            self.configured = {key.public_id: configured_key(key) for key in configured_keys(self.settings)}
            self.file_time = file_time

    def restore(self) -> bool:
        """Takes the keys from the file; whether it may be believed. Raises ConfigurationError as a refresh does."""
        if self.file is None:
            return False
        now = self.wall_clock()
        try:
            found = self.file.read(now=now, max_age_seconds=self.settings.max_snapshot_age_seconds)
        except UnusableSnapshot as error:
            log.warning("key_snapshot_refused", file=str(self.file.path), reason=str(error))
            return False
        if found is None:
            return False
        self.reload_configured()
        self.stored, self.is_opened = found.keys, False
        self.read_at = self.clock() - max(0.0, now - found.read_at)
        log.warning("key_snapshot_used", age_seconds=round(self.age_seconds, 1), keys=len(found.keys))
        return True

    async def close(self) -> None:
        await self.background.close()
        await self.unknown.close()
        if self.writer is not None:
            await self.writer.close()
        self.store.close()
        self.worker.close()


def apply_changes(stored: Keys, changes: KeyChanges) -> Keys:
    if changes.is_whole:
        return changes.keys
    changed = {**stored, **changes.keys}
    for public_id in changes.removed:
        changed.pop(public_id, None)
    return changed


def configured_keys(settings: AuthSettings) -> list[Key]:
    """The keys of the environment and of the key file. Raises ConfigurationError for one that is too short, saying which line."""
    keys: list[Key] = []
    if settings.keys is not None:
        origin = settings.keys.env or settings.keys.file or ""
        keys += parse_keys(secret_value(settings.keys).replace(",", "\n").splitlines(), origin)
    if settings.keys_file is not None:
        try:
            lines = read_text(Path(settings.keys_file)).splitlines()
        except (OSError, NotUTF8) as error:
            raise ConfigurationError(f"auth.keys_file: {settings.keys_file} cannot be read: {reason_of(error)}") from None
        keys += parse_keys(lines, settings.keys_file)
    return keys


def parse_keys(lines: Iterable[str], origin: str) -> Iterable[Key]:
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if reason := misspelt(text):
            raise ConfigurationError(f"key {number} of {origin} is not usable: {reason}")
        if len(text) < MIN_PLAIN_KEY_CHARS or not text.isascii() or not text.isprintable() or " " in text:
            raise ConfigurationError(
                f"key {number} of {origin} is not usable: it must be at least {MIN_PLAIN_KEY_CHARS}"
                " printable ASCII characters without spaces"
            )
        yield plain_key(text)


def misspelt(text: str) -> str | None:
    """What stands around keys, or between them, where it would be taken for a part of one."""
    if text[0] in QUOTES or text[-1] in QUOTES:
        return "it has a quote at its end, which would be part of it: write keys without quotes"
    if text.startswith(("[", "{")):
        return "keys are no list or table here: write them with commas between, or each on a line"
    if ";" in text:
        return "it holds a ';': write several keys with commas between, or each on a line"
    return None


def modified_at(path: str | None) -> float:
    try:
        return Path(path).stat().st_mtime_ns if path else 0
    except OSError:
        return -1  # a file that went away is a change too; reading it then says so
