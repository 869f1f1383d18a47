"""The C library's heap: what was freed in it goes back to the system only when it is trimmed."""

import ctypes
import gc
import sys
from collections.abc import Callable


def malloc_trim() -> Callable[[], object] | None:
    """Returns a call of glibc's malloc_trim(3), which trims all its heaps, or None if the C library is another."""
    if sys.platform != "linux":
        return None
    found = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if found is None else lambda: found(0)


def release_memory() -> None:
    """Frees what is no longer referenced, and returns it to the system. Blocks for 20 to 200 ms."""
    gc.collect()
    if trim := malloc_trim():
        trim()
