"""A copy-on-write snapshot of the keys in force, replaced when the store or the key file changes.

A look-up is a few hashes and a dictionary: a request with a known key never waits for a database. A change is seen within
`REFRESH_SECONDS`, so a revoked key stops within 2 s in every process. Before an unknown key is refused, the store is read once
more. While the store cannot be read, the last snapshot is used for `max_snapshot_age_seconds`. A file keeps it, for a gateway that
starts meanwhile.
"""

import asyncio
import hmac
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
from gateway.errors import ConfigurationError, InvalidKey, KeyStoreUnavailable, OperatorError, StoreUnavailable
from gateway.log import get_logger

REFRESH_SECONDS = 0.5
OUTAGE_HINT = "the keys known last go on for auth.max_snapshot_age_seconds; then 503"

log = get_logger()

Keys = dict[str, CachedKey]


class KeySnapshot:
    """The configured keys and the stored keys, together."""

    def __init__(  # noqa: PLR0913 - two sources of keys, two clocks, two parts for an outage
        self,
        settings: AuthSettings,
        store: KeyStore,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        *,
        outage: StoreOutage | None = None,
        file: SnapshotFile | None = None,
    ) -> None:
        """`outage` reports times when the keys cannot be read. Without `file` nothing is kept on disk."""
        self.settings = settings
        self.store = store
        self.clock = clock
        self.wall_clock = wall_clock
        self.outage = outage or StoreOutage("key_store", hint=OUTAGE_HINT, show=lambda _: None, clock=clock)
        self.file = file
        self.stored: Keys = {}  # copy-on-write, as `configured`: replaced as a whole, never mutated
        self.configured: Keys = {}
        self.revision: Revision | None = None  # of the store, when `stored` was read
        self.file_time: float | None = None  # of the key file, when `configured` was read
        self.read_at = clock()
        self.is_opened = True  # False if the store was unavailable at the start: its tables may be of another version
        self.on_changed: Callable[[], None] | None = None  # called on the event loop after keys changed
        self.unknown = UnknownKeyLookup(self.look_again, clock)
        self.background = BackgroundTask("keys", self.watch)
        # A thread of its own: a revocation must not wait for other work in the loop's shared threads.
        self.worker = WorkerThread("keys-store")
        self.writer = SnapshotWriter(file, max_age_seconds=settings.max_snapshot_age_seconds, clock=clock) if file else None

    async def start(self) -> None:
        """Reads all keys, then watches for changes. Raises OperatorError if neither the store nor the file can be read."""
        try:
            await self.worker.run(self.store.open)
            await self.worker.run(self.refresh)
        except KeyStoreUnavailable as error:
            if not await self.worker.run(self.restore):
                raise
            self.outage.begin(str(error))
        self.background.start()

    async def authenticate(self, text: str) -> Caller:
        """Like `caller`, but reads the store once more for an unknown key that has the form of a stored one."""
        try:
            return self.caller(text)
        except InvalidKey:
            digest = digest_of(text)
            if self.is_unavailable or MADE_SHAPE.fullmatch(text) is None or self.unknown.is_remembered(digest):
                raise
            if not await self.unknown.look():
                raise
        try:
            return self.caller(text)
        except InvalidKey:
            self.unknown.remember(digest)
            raise

    def caller(self, text: str) -> Caller:
        """Returns the caller whose key is `text`. Raises InvalidKey, or StoreUnavailable if the snapshot is too old."""
        if self.is_stale:
            raise StoreUnavailable
        found = self.find(text)
        if found is None:
            raise InvalidKey(f"Incorrect API key provided: {mask(text)}.")
        return found.caller

    def find(self, text: str) -> CachedKey | None:
        """The key that `text` opens now."""
        digest, now = digest_of(text), self.wall_clock()
        for public_id in candidate_ids(text, digest):
            known = self.stored.get(public_id) or self.configured.get(public_id) or UNKNOWN
            if known.opens_with(digest, now):
                return known
        return None

    def expiry_of(self, text: str) -> float:
        """When a known key ceases to be valid, in Unix seconds. After a rotation that may be the end of its former secret."""
        known = self.find(text)
        if known is None:
            return 0.0
        is_current = hmac.compare_digest(digest_of(text), known.digest)
        return known.expires_at if is_current else min(known.expires_at, known.previous_until)

    @property
    def is_stale(self) -> bool:
        """Whether the snapshot is too old to be used."""
        return self.clock() - self.read_at > self.settings.max_snapshot_age_seconds

    def find_caller(self, public_id: str) -> Caller | None:
        """Returns the caller of a key in force, by its id. Raises StoreUnavailable if the snapshot is too old."""
        if self.clock() - self.read_at > self.settings.max_snapshot_age_seconds:
            raise StoreUnavailable
        known = self.stored.get(public_id) or self.configured.get(public_id)
        return known.caller if known is not None and self.wall_clock() < known.expires_at else None

    @property
    def is_empty(self) -> bool:
        return not self.stored and not self.configured

    @property
    def is_watching(self) -> bool:
        """Whether changes are noticed. False if the watch died, which `/livez` shows."""
        return self.background.is_running

    @property
    def is_kept(self) -> bool:
        """Whether the snapshot is kept in the file. False if the writer died."""
        return self.writer is None or self.writer.background.death is None

    @property
    def is_unavailable(self) -> bool:
        """Whether the last try to read the store failed."""
        return self.outage.reason is not None

    @property
    def age_seconds(self) -> float:
        """The age of the snapshot."""
        return max(0.0, self.clock() - self.read_at)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            if await self.renew() and self.writer is not None:
                self.writer.offer(Snapshot(self.stored, self.wall_clock() - self.age_seconds))

    async def renew(self) -> bool:
        """Reads all changes up to now. Await it after a key is changed, before you say so. Returns whether the store answered."""
        return await self.read_with(self.refresh)

    async def look_again(self) -> bool:
        return await self.read_with(self.begin_refresh)

    async def read_with(self, read: Callable[[], None]) -> bool:
        stored, configured = self.stored, self.configured
        try:
            await self.worker.run(read)
        except OperatorError as error:
            self.outage.begin(str(error))
            return False
        self.outage.end()
        if self.on_changed is not None and (self.stored is not stored or self.configured is not configured):
            self.on_changed()
        return True

    def begin_refresh(self) -> None:
        self.unknown.begun()
        self.refresh()

    def refresh(self) -> None:
        """Reads the changes only: one changed key among 100,000 costs a copied dictionary, not a second of reading all."""
        started = self.clock()
        if not self.is_opened:
            self.store.open()
            self.is_opened = True
        changes = self.store.read(self.revision)
        if changes is not None:
            self.stored, self.revision = _apply_changes(self.stored, changes), changes.revision
        self.reload_configured()
        self.read_at = started

    def reload_configured(self) -> None:
        file_time = _modified_at(self.settings.keys_file)
        if file_time != self.file_time:
            self.configured = {key.public_id: configured_key(key) for key in configured_keys(self.settings)}
            self.file_time = file_time

    def restore(self) -> bool:
        """Takes the keys from the file. Returns whether it was usable. Raises ConfigurationError as `refresh` does."""
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


def _apply_changes(stored: Keys, changes: KeyChanges) -> Keys:
    if changes.is_whole:
        return changes.keys
    changed = {**stored, **changes.keys}
    for public_id in changes.removed:
        changed.pop(public_id, None)
    return changed


def configured_keys(settings: AuthSettings) -> list[Key]:
    """Returns the keys of the environment and the key file. Raises ConfigurationError with the number of an unusable key."""
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
        if reason := _misspelt(text):
            raise ConfigurationError(f"key {number} of {origin} is not usable: {reason}")
        if len(text) < MIN_PLAIN_KEY_CHARS or not text.isascii() or not text.isprintable() or " " in text:
            raise ConfigurationError(
                f"key {number} of {origin} is not usable: it must be at least {MIN_PLAIN_KEY_CHARS}"
                " printable ASCII characters without spaces"
            )
        yield plain_key(text)


def _misspelt(text: str) -> str | None:
    """The reason why `text` looks like a mistake: quotes, brackets or a wrong separator would become part of the key."""
    if text[0] in QUOTES or text[-1] in QUOTES:
        return "it has a quote at its end, which would be part of it: write keys without quotes"
    if text.startswith(("[", "{")):
        return "keys are no list or table here: write them with commas between, or each on a line"
    if ";" in text:
        return "it holds a ';': write several keys with commas between, or each on a line"
    return None


def _modified_at(path: str | None) -> float:
    try:
        return Path(path).stat().st_mtime_ns if path else 0
    except OSError:
        return -1  # a removed file is a change too; reading it then raises
