"""A courier without a cluster: does what the caller of a call asks for by its name."""

import asyncio
import os
import socket
import sys

import msgspec
import numpy as np

from gateway.cluster import message
from gateway.cluster.courier import Orders
from gateway.cluster.message import Call, Cancel, Done, Goodbye, News


async def main() -> None:
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=orders.fd))
    message.write(writer, message.encoded(News(is_up=True, detail=str(os.getpid()))))
    held: list[tuple[Call, bytes]] = []
    while True:
        header, payload = await message.read(reader)
        asked = message.to_courier.decode(header)
        if isinstance(asked, Cancel):
            message.write(writer, message.encoded(News(is_up=True, detail=f"cancelled {asked.number}")))
        elif asked.caller == "dies":
            os._exit(7)
        elif asked.caller == "says goodbye":
            message.write(writer, message.encoded(Goodbye(reason="enough")))
            await writer.drain()
            return
        elif asked.caller == "talks nonsense":
            message.write(writer, b"\xc1 no message")
        elif asked.caller != "is silent":
            held.append((asked, payload))
            if asked.caller != "is held":
                while held:  # the last one first
                    call, content = held.pop()
                    rows = np.frombuffer(content, dtype=np.int32).astype(np.float32)
                    done = Done(number=call.number, dimensions=len(rows), stages={}, backlog_seconds=0)
                    message.write(writer, message.encoded(done), memoryview(rows).cast("B"))


asyncio.run(main())
