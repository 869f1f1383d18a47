"""Names looked up without a thread that others need: the system's resolver blocks, without a deadline, and cannot be stopped.

Each name is looked up by one thread at a time, however many wait for it; they are daemons, and as many as there are names.
"""

import asyncio
import errno
import socket
from contextlib import suppress
from functools import partial
from typing import Any

from gateway.background import BackgroundThread

AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]  # as socket.getaddrinfo has it


class NameLookup:
    """Used on one event loop."""

    def __init__(self) -> None:
        self.pending: dict[tuple[str, int, int], asyncio.Future[list[AddressInfo]]] = {}

    async def addresses(self, host: str, port: int, *, family: int = 0, timeout_seconds: float) -> list[AddressInfo]:
        """Raises OSError where there are none, or none in time."""
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
                found.exception()  # whoever waited may have left
            else:
                found.set_result(result)

        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            found.get_loop().call_soon_threadsafe(finish)
