"""The rows of batches as the event loop uses them: each call runs in the store's own thread."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from gateway.access.worker import WorkerThread
from gateway.batches.store import BatchStore
from gateway.errors import KeyStoreUnavailable, StorageUnavailable
from gateway.log import get_logger

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

log = get_logger()


class BatchRecords:
    """Each has a thread: requests of clients do not wait for those of the runner."""

    def __init__(self, store: BatchStore, *, name: str) -> None:
        self.store = store
        self.worker = WorkerThread(name)

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Runs a method of the store. Raises what it raises, and StorageUnavailable if the database fails; the log says why."""
        try:
            return await self.worker.run(work, *args, **kwargs)
        except KeyStoreUnavailable as error:
            log.warning("batch_table_failed", reason=str(error))
            raise StorageUnavailable from None

    def close(self) -> None:
        self.worker.close()
