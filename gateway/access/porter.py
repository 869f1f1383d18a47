"""Who is let in, and what becomes of it: the keys in force, the usage they make, and the store behind both."""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.access.bookkeeper import Bookkeeper
from gateway.access.database import Database
from gateway.access.key_gauges import KeyGauges
from gateway.access.keyring import OUTAGE_HINT, Keyring
from gateway.access.ledger import Ledger
from gateway.access.outage import Outage
from gateway.access.snapshot_file import SnapshotFile
from gateway.access.store import KeyStore
from gateway.config import AuthSettings, StoreSettings, UsageSettings
from gateway.metrics import Metrics


@dataclass(frozen=True, slots=True, eq=False)
class Porter:
    """There is none where nobody needs a key."""

    store: KeyStore
    keyring: Keyring
    ledger: Ledger
    bookkeeper: Bookkeeper
    gauges: KeyGauges
    metrics: Metrics

    async def start(self) -> None:
        """Reads the keys and what they have used. Raises OperatorError."""
        await self.keyring.start()
        self.metrics.key_snapshot_age.set_function(lambda: self.keyring.age_seconds)
        await self.bookkeeper.start(is_store_away=self.keyring.is_away)
        await self.gauges.start()

    @property
    def parts(self) -> dict[str, Callable[[], bool]]:
        """The tasks that must run as long as this does, and whether they do."""
        return {
            "keys": lambda: self.keyring.is_watching,
            "usage": lambda: self.bookkeeper.is_running,
            "key-gauges": lambda: self.gauges.is_running,
        }

    async def close(self) -> None:
        """Writes what was used, last of all."""
        await self.gauges.close()
        await self.bookkeeper.close()
        await self.keyring.close()

    @property
    def shortfalls(self) -> dict[str, Callable[[], str | None]]:
        """The parts that may go on without the store, and in a word for strangers how; None while they need not."""
        return {"keys": lambda: "snapshot" if self.keyring.is_away else None}


def built_porter(auth: AuthSettings, usage: UsageSettings, store: StoreSettings, metrics: Metrics) -> Porter | None:
    if auth.mode == "none":
        return None
    database = Database(store, on_dropped=metrics.store_connections_dropped.inc)
    keys, ledger = KeyStore(database), Ledger(database)
    # A file of SQLite's is on this machine, and is away with the disk that a snapshot would be on.
    is_kept = auth.snapshot_on_disk and database.identity
    file = SnapshotFile(store.folder, database.identity) if is_kept else None
    outage = Outage("key_store", hint=OUTAGE_HINT, show=metrics.key_store_up.set)
    keyring, bookkeeper = Keyring(auth, keys, outage=outage, file=file), Bookkeeper(ledger, usage, metrics=metrics)
    return Porter(keys, keyring, ledger, bookkeeper, KeyGauges(keyring, bookkeeper, metrics), metrics)
