"""The event loop of every process that serves: uvloop's, where there is one."""

import sys
from typing import Any


def loop_factory() -> Any:
    """For asyncio.Runner."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not available on Windows

    return uvloop.new_event_loop
