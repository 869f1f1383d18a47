"""Access control with API keys: the snapshot of keys, the usage recorder, and the store behind both."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gateway.access.database import Database
from gateway.access.keys.key import Caller
from gateway.access.keys.snapshot import OUTAGE_HINT, KeySnapshot
from gateway.access.keys.snapshot_file import SnapshotFile
from gateway.access.keys.store import KeyStore
from gateway.access.outage import StoreOutage
from gateway.access.usage.key_gauges import KeyGauges
from gateway.access.usage.recorder import UsageRecorder
from gateway.access.usage.store import UsageStore
from gateway.config import AuthSettings, ListenAddress, StoreSettings, UsageSettings
from gateway.log import get_logger
from gateway.metrics import Metrics

log = get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class KeyAccess:
    """An `AccessControl` that authenticates callers by their keys."""

    store: KeyStore
    snapshot: KeySnapshot
    usage_store: UsageStore
    recorder: UsageRecorder
    gauges: KeyGauges
    metrics: Metrics

    @property
    def needs_key(self) -> bool:
        return True

    @property
    def databases(self) -> Iterable[Database]:
        return [self.store.database]

    @property
    def parts(self) -> dict[str, Callable[[], bool]]:
        return {
            "keys": lambda: self.snapshot.is_watching,
            "usage": lambda: self.recorder.is_running,
            "key-gauges": lambda: self.gauges.is_running,
            "key-snapshot": lambda: self.snapshot.is_kept,
        }

    @property
    def shortfalls(self) -> dict[str, Callable[[], str | None]]:
        return {"keys": lambda: "snapshot" if self.snapshot.is_unavailable else None}

    async def start(self) -> None:
        """Reads the keys and what they have spent."""
        await self.snapshot.start()
        self.metrics.access.key_snapshot_age.set_function(lambda: self.snapshot.age_seconds)
        await self.recorder.start(is_store_unavailable=self.snapshot.is_unavailable)
        await self.gauges.start()

    def warn(self, *, addresses: Sequence[ListenAddress]) -> None:  # noqa: ARG002 - the same on every address
        if self.snapshot.is_empty:
            log.warning("no_api_keys", hint="no request can be served yet: make a key with `gateway keys create`")

    async def authenticate(self, read_key: Callable[[], str]) -> Caller:
        return await self.snapshot.authenticate(read_key())

    def refuse_spent(self, caller: Caller) -> None:
        self.recorder.refuse_spent(caller)

    def record(  # noqa: PLR0913 - each is counted
        self, caller: Caller, *, model: str, num_inputs: int, num_tokens: int, num_cached_tokens: int, num_requests: int = 1
    ) -> None:
        self.recorder.record(
            caller, model=model, num_inputs=num_inputs, num_tokens=num_tokens, num_cached_tokens=num_cached_tokens,
            num_requests=num_requests,
        )  # fmt: skip

    def find_caller(self, public_id: str) -> Caller | None:
        return self.snapshot.find_caller(public_id)

    def require_keys(self) -> "KeyAccess":
        return self

    async def close(self) -> None:
        """Closes the parts. The recorder writes the remaining usage."""
        await self.gauges.close()
        await self.recorder.close()
        await self.snapshot.close()


def build_key_access(auth: AuthSettings, usage: UsageSettings, store: StoreSettings, metrics: Metrics) -> KeyAccess:
    database = Database(store, on_dropped=metrics.access.store_connections_dropped.inc)
    keys, usage_store = KeyStore(database), UsageStore(database)
    # No snapshot for SQLite: its file is on the same disk that a snapshot would be on, and fails with it.
    is_kept = auth.snapshot_on_disk and database.identity
    file = SnapshotFile(store.folder, database.identity) if is_kept else None
    outage = StoreOutage("key_store", hint=OUTAGE_HINT, show=metrics.access.key_store_up.set)
    key_snapshot, recorder = KeySnapshot(auth, keys, outage=outage, file=file), UsageRecorder(usage_store, usage, metrics=metrics)
    return KeyAccess(keys, key_snapshot, usage_store, recorder, KeyGauges(key_snapshot, recorder, metrics), metrics)
