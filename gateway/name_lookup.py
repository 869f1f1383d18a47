"""Name resolution in threads of its own: the system's resolver blocks, without a deadline, and cannot be cancelled.

Single flight: one thread at a time looks a name up, however many callers wait. The threads are daemons, at most one for each name.
"""

import asyncio
import errno
import socket
from contextlib import suppress
from functools import partial
from typing import Any

from gateway.background import BackgroundThread

AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]  # as socket.getaddrinfo returns it


class NameLookup:
    """Used on one event loop."""

    def __init__(self) -> None:
        self.pending: dict[tuple[str, int, int], asyncio.Future[list[AddressInfo]]] = {}

    async def addresses(self, host: str, port: int, *, family: int = 0, timeout_seconds: float) -> list[AddressInfo]:
        """Returns the addresses of `host`. Raises OSError if there are none, or none in time."""
        name = host, port, family
        found = self.pending.get(name)
        if found is None:
            found = self.pending[name] = asyncio.get_running_loop().create_future()
            died = partial(self.deliver, found, name, OSError(socket.EAI_FAIL, "the look-up died"))
            thread = BackgroundThread("name-lookup", partial(self.look_up, found, *name), may_end=True, on_death=died)
            try:
                thread.start()
            except RuntimeError:
                self.pending.pop(name)
                raise OSError(errno.EAGAIN, "no more threads") from None
        done, _ = await asyncio.wait([found], timeout=timeout_seconds)
        if not done:
            raise OSError(socket.EAI_AGAIN, "the name was not looked up in time")
        return found.result()

    def look_up(self, found: "asyncio.Future[list[AddressInfo]]", host: str, port: int, family: int) -> None:
        try:
            addresses: list[AddressInfo] = socket.getaddrinfo(
                host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
        except (OSError, UnicodeError) as error:
            failure = error if isinstance(error, OSError) else OSError(socket.EAI_NONAME, "this is no name")
            self.deliver(found, (host, port, family), failure)
        else:
            self.deliver(found, (host, port, family), addresses)

    def deliver(
        self, found: "asyncio.Future[list[AddressInfo]]", name: tuple[str, int, int], result: OSError | list[AddressInfo]
    ) -> None:
        def finish() -> None:
            self.pending.pop(name, None)
            if isinstance(result, OSError):
                found.set_exception(result)
                found.exception()  # retrieves it: asyncio would log it if every caller has stopped waiting
            else:
                found.set_result(result)

        with suppress(RuntimeError):  # the loop has ended, and no caller waits
            found.get_loop().call_soon_threadsafe(finish)
