"""Gives memory back that large bodies took: glibc keeps what was freed below something that is still in use.

Measured with MiniLM on two cores, after twelve bodies of 10 KB that unpack to 10 MB of text, four at once: 650 MB resident, 349 MB
after malloc_trim (267 MB before them all). One heap for all threads instead (MALLOC_ARENA_MAX=1) left 657 MB, and a fixed threshold
for mmap (MALLOC_MMAP_THRESHOLD_=1048576) 498 MB, so it is done by a trim, and by nothing else.
"""

import asyncio
import ctypes
import sys
from collections.abc import Callable

from gateway.access.admission import Admission

LOOK_SECONDS = 2.0
MIN_BYTES = 8 * 1024 * 1024  # of bodies since the last time: fewer leave little behind
# Of bodies in memory. A trim takes 10 to 130 ms of a thread, and threads that want memory wait meanwhile: not while there is work.
MAX_HELD_BYTES = 1024 * 1024


class MemoryWatch:
    """Trims once large bodies came and are gone. `trim` runs in a thread."""

    def __init__(self, admission: Admission, trim: Callable[[], object]) -> None:
        self.admission = admission
        self.trim = trim
        self.num_bytes_seen = 0

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        num_bytes = self.admission.num_bytes_ever
        if num_bytes - self.num_bytes_seen >= MIN_BYTES and self.admission.num_bytes <= MAX_HELD_BYTES:
            self.num_bytes_seen = num_bytes
            await asyncio.to_thread(self.trim)


def malloc_trim() -> Callable[[], object] | None:
    """glibc's, as malloc_trim(3) describes it: of all its heaps. None where the C library is another."""
    if sys.platform != "linux":
        return None
    found = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if found is None else lambda: found(0)
