"""Files of a folder are closed, whoever waits for them."""

import asyncio
import threading

from gateway.files.folder_storage import FolderStorage
from gateway.metrics import Metrics


async def test_a_file_that_opens_once_its_caller_has_gone_is_closed(tmp_path):
    storage = FolderStorage(tmp_path, Metrics().files, min_free_bytes=0)
    begun, may_open, files = threading.Event(), threading.Event(), []

    def open_late():
        begun.set()
        may_open.wait(30)
        files.append((tmp_path / "a").open("wb"))
        return files[0]

    opening = asyncio.create_task(storage.opened(open_late))
    await asyncio.to_thread(begun.wait, 30)
    opening.cancel()
    assert await asyncio.gather(opening, return_exceptions=True) != [None]
    may_open.set()
    storage.threads.shutdown()
    assert files[0].closed
