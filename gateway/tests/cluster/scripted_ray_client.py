"""A Ray client without a cluster: does what the caller of a call asks for by its name."""

import asyncio
import os
import socket
import sys

import msgspec
import numpy as np

from gateway.calls import framing, message
from gateway.calls.message import CancelCall, ClusterStatus, EmbedCall, EmbedResult, Shutdown
from gateway.cluster.ray_client import ClientConfig


async def main() -> None:
    orders = msgspec.json.decode(sys.argv[1], type=ClientConfig)
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=orders.fd))
    framing.write(writer, message.encode(ClusterStatus(is_up=True, detail=str(os.getpid()))))
    held: list[tuple[EmbedCall, bytes]] = []
    while True:
        header, payload = await framing.read(reader)
        asked = message.to_client.decode(header)
        if isinstance(asked, CancelCall):
            framing.write(writer, message.encode(ClusterStatus(is_up=True, detail=f"cancelled {asked.number}")))
        elif asked.caller == "dies":
            os._exit(7)
        elif asked.caller == "says goodbye":
            framing.write(writer, message.encode(Shutdown(reason="enough")))
            await writer.drain()
            return
        elif asked.caller == "talks nonsense":
            framing.write(writer, b"\xc1 no message")
        elif asked.caller != "is silent":
            held.append((asked, payload))
            if asked.caller != "is held":
                while held:  # the last one first
                    call, content = held.pop()
                    rows = np.frombuffer(content, dtype=np.int32).astype(np.float32)
                    done = EmbedResult(number=call.number, dimensions=len(rows), stages={}, backlog_seconds=0)
                    framing.write(writer, message.encode(done), memoryview(rows).cast("B"))


asyncio.run(main())
