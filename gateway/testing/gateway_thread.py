"""A gateway on a real socket, in a thread with its own event loop, for tests of the bytes on the wire."""

import asyncio
import socket
import threading
from contextlib import contextmanager

WAIT_SECONDS = 30


@contextmanager
def served(gateway, *, wait_seconds=WAIT_SECONDS):
    """Yields (host, port) once the gateway is ready. Afterwards stops it, and asserts that its `serve` ends without an error."""
    ready = threading.Event()
    loops, errors = [], []

    async def run():
        loops.append(asyncio.get_running_loop())
        serving = asyncio.create_task(gateway.serve())
        while not (gateway.address and gateway.catalog.ready) and not serving.done():
            await asyncio.sleep(0.01)
        ready.set()
        await serving

    def live():
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - asserted on in the test's own thread
            errors.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=live, name="served")
    thread.start()
    assert ready.wait(wait_seconds)
    assert not errors, errors
    host, _, port = gateway.address.removeprefix("http://").rpartition(":")
    port = port if port.isdigit() else 0  # a Unix socket has none
    try:
        yield host, int(port)
    finally:
        loops[0].call_soon_threadsafe(gateway.stop)
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
        assert not errors, errors


def exchanged(address, content, *, timeout_seconds=10.0):
    """Sends `content`, and returns all bytes until the server closes the connection. Raises TimeoutError if it hangs."""
    with socket.create_connection(address, timeout=timeout_seconds) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError, OSError):
            pass  # the server has answered and closed already
        received = bytearray()
        while True:
            try:
                chunk = connection.recv(65536)
            except ConnectionResetError:
                break
            if not chunk:
                break
            received += chunk
    return bytes(received)
