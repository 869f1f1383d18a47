"""Returns the memory of large bodies to the system with malloc_trim: glibc keeps freed memory that lies below a block in use.

Measured with MiniLM on two cores, after twelve bodies of 10 KB that unpack to 10 MB of text, four at once: 650 MB resident, 349 MB
after malloc_trim (267 MB before the bodies). One heap for all threads (MALLOC_ARENA_MAX=1) left 657 MB, and a fixed threshold for
mmap (MALLOC_MMAP_THRESHOLD_=1048576) 498 MB. So only the trim is used.
"""

import asyncio
from collections.abc import Callable

from gateway.access.admission import Admission
from gateway.malloc import malloc_trim

__all__ = ["MemoryWatch", "malloc_trim"]

LOOK_SECONDS = 2.0
MIN_BYTES = 8 * 1024 * 1024  # of bodies since the last trim: fewer leave little memory behind
# Of bodies in memory: more of them means work, and then no trim runs. It takes 10 to 130 ms, and threads that allocate wait for it.
MAX_HELD_BYTES = 1024 * 1024


class MemoryWatch:
    """Trims after large bodies have come and gone. `trim` runs in a thread."""

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
