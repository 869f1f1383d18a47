"""Who is let in, and what becomes of it: the keys in force, the usage they make, and the store behind both."""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.access.database import Database
from gateway.access.keys.snapshot import OUTAGE_HINT, KeySnapshot
from gateway.access.keys.snapshot_file import SnapshotFile
from gateway.access.keys.store import KeyStore
from gateway.access.outage import StoreOutage
from gateway.access.usage.key_gauges import KeyGauges
from gateway.access.usage.recorder import UsageRecorder
from gateway.access.usage.store import UsageStore
from gateway.config import AuthSettings, StoreSettings, UsageSettings
from gateway.metrics import Metrics


@dataclass(frozen=True, slots=True, eq=False)
class AccessControl:
    """There is none where nobody needs a key."""

    store: KeyStore
    snapshot: KeySnapshot
    usage_store: UsageStore
    recorder: UsageRecorder
    gauges: KeyGauges
    metrics: Metrics

    async def start(self) -> None:
        """Reads the keys and what they have used. Raises OperatorError."""
        await self.snapshot.start()
        self.metrics.key_snapshot_age.set_function(lambda: self.snapshot.age_seconds)
        await self.recorder.start(is_store_away=self.snapshot.is_away)
        await self.gauges.start()

    @property
    def parts(self) -> dict[str, Callable[[], bool]]:
        """The tasks that must run as long as this does, and whether they do."""
        return {
            "keys": lambda: self.snapshot.is_watching,
            "usage": lambda: self.recorder.is_running,
            "key-gauges": lambda: self.gauges.is_running,
        }

    async def close(self) -> None:
        """Writes what was used, last of all."""
        await self.gauges.close()
        await self.recorder.close()
        await self.snapshot.close()

    @property
    def shortfalls(self) -> dict[str, Callable[[], str | None]]:
        """The parts that may go on without the store, and in a word for strangers how; None while they need not."""
        return {"keys": lambda: "snapshot" if self.snapshot.is_away else None}


def build_access_control(auth: AuthSettings, usage: UsageSettings, store: StoreSettings, metrics: Metrics) -> AccessControl | None:
    if auth.mode == "none":
        return None
    database = Database(store, on_dropped=metrics.store_connections_dropped.inc)
    keys, usage_store = KeyStore(database), UsageStore(database)
    # A file of SQLite's is on this machine, and is unavailable with the disk that a snapshot would be on.
    is_kept = auth.snapshot_on_disk and database.identity
    file = SnapshotFile(store.folder, database.identity) if is_kept else None
    outage = StoreOutage("key_store", hint=OUTAGE_HINT, show=metrics.key_store_up.set)
    key_snapshot, recorder = KeySnapshot(auth, keys, outage=outage, file=file), UsageRecorder(usage_store, usage, metrics=metrics)
    return AccessControl(keys, key_snapshot, usage_store, recorder, KeyGauges(key_snapshot, recorder, metrics), metrics)
