"""An upstream that costs next to nothing: 384 numbers for each text, whatever it says. `python -m benchmarks.standin PORT`.

50,000 requests a second on one core, so what is measured before it is the gateway.
"""

import asyncio
import base64
import sys
from functools import cache
from typing import cast

import numpy as np
import orjson
import uvloop

HOST = "127.0.0.1"
DIMENSIONS = 384
TOKENS = 32  # of each text, or so it says
VECTOR = base64.b64encode((np.arange(DIMENSIONS, dtype="<f4") / DIMENSIONS - 0.5).tobytes()).decode()
READY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@cache
def reply(num_texts: int) -> bytes:
    usage = {"prompt_tokens": TOKENS * num_texts, "total_tokens": TOKENS * num_texts}
    data = [{"object": "embedding", "index": index, "embedding": VECTOR} for index in range(num_texts)]
    content = orjson.dumps({"object": "list", "data": data, "model": "stand-in", "usage": usage})
    return as_reply(content)


def as_reply(content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content) + content


class Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one, and is no subclass
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while True:
            head, ended, rest = self.received.partition(b"\r\n\r\n")
            length = body_length(head)
            if not ended or len(rest) < length:
                return
            self.received = rest[length:]
            self.transport.write(self.answer(rest[:length]) if length else READY)

    def answer(self, body: bytes) -> bytes:
        texts = orjson.loads(body)["input"]
        return reply(1 if isinstance(texts, str) else len(texts))


def body_length(head: bytes) -> int:
    _, _, after = head.lower().partition(b"\r\ncontent-length:")
    return int(after.partition(b"\r\n")[0] or 0)


async def serve(port: int, host: str = HOST, protocol: type[Connection] = Connection) -> None:
    server = await asyncio.get_running_loop().create_server(protocol, host, port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
