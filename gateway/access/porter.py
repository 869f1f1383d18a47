"""Who is let in, and what becomes of it: the keys in force, the usage they make, and the store behind both."""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.access.bookkeeper import Bookkeeper
from gateway.access.database import Database
from gateway.access.key_gauges import KeyGauges
from gateway.access.keyring import Keyring
from gateway.access.ledger import Ledger
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

    async def start(self) -> None:
        """Reads the keys and what they have used. Raises OperatorError."""
        await self.keyring.start()
        await self.bookkeeper.start()
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


def built_porter(auth: AuthSettings, usage: UsageSettings, store: StoreSettings, metrics: Metrics) -> Porter | None:
    if auth.mode == "none":
        return None
    database = Database(store)
    keys, ledger = KeyStore(database), Ledger(database)
    keyring, bookkeeper = Keyring(auth, keys), Bookkeeper(ledger, usage, metrics=metrics)
    return Porter(keys, keyring, ledger, bookkeeper, KeyGauges(keyring, bookkeeper, metrics))
