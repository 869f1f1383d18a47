"""Stand-ins for upstream servers on real sockets, built only from what the servers' sources say that they answer.

A `Standin` answers by a function from the request to a `Said`. A faulty reply is faulty in its bytes. Sources:

Ollama   server/routes.go (EmbedHandler), server/sched.go (ErrMaxQueue), docs/api.md of ollama/ollama
TEI      router/src/http/server.rs, router/src/http/types.rs, router/src/lib.rs (Info, ErrorResponse, x-compute-tokens),
         core/src/tokenization.rs of huggingface/text-embeddings-inference
OpenAI   the public OpenAPI description, 2.3.0, and errors recorded from the real API
"""

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from gateway.testing.fakes import hashed

DIMENSIONS = 8
REASONS = {
    200: "OK",
    301: "Moved Permanently",
    400: "Bad Request",
    404: "Not Found",
    413: "Payload Too Large",
    429: "Too Many Requests",
}


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    content: bytes

    @property
    def body(self):
        return json.loads(self.content)


@dataclass
class Said:
    """A reply, from its parts or as the whole bytes in `raw`.

    `gate` delays it until it is set, `cut_at` closes the connection after so many bytes, `drips` sends it byte by byte.
    """

    status: int = 200
    body: object = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    gate: asyncio.Event | None = None
    cut_at: int | None = None
    drips: bool = False

    def bytes(self):
        if self.raw is not None:
            return self.raw
        content = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(content)), **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Status')}\r\n{lines}\r\n".encode() + content


class Standin:
    """A server on a real socket. `answer` may change at any time. `requests` are all so far, `num_open` those not answered yet."""

    def __init__(self, answer: Callable[[Request], Said]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.num_open = 0
        self.most_open = 0
        self.num_left = 0  # clients that closed before they were answered
        self.came = asyncio.Event()
        self.writers: set[asyncio.StreamWriter] = set()
        self.tls = None
        self.port = 0

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self, tls=None, port=0):
        self.tls = tls
        server = await asyncio.start_server(self.talk, "127.0.0.1", port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await asyncio.sleep(0)  # sockets that were just accepted get the transports that close them
            for writer in list(self.writers):
                writer.transport.abort()
            await server.wait_closed()

    async def talk(self, reader, writer):
        self.writers.add(writer)
        try:
            while (request := await read(reader)) is not None:
                await self.reply(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except ValueError:  # not HTTP, for example a TLS hello: servers answer that with 400
            writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        finally:
            self.writers.discard(writer)
            writer.close()

    async def reply(self, request, reader, writer):
        self.requests.append(request)
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        self.came.set()
        try:
            said = self.answer(request)
            if said.gate is not None:
                await self.held(said.gate, reader)
            content = said.bytes()
            for index in range(len(content) if said.drips else 0):
                writer.write(content[index : index + 1])
                await writer.drain()
                await asyncio.sleep(0.01)
            if said.drips:
                return
            writer.write(content if said.cut_at is None else content[: said.cut_at])
            await writer.drain()
            if said.cut_at is not None:
                writer.transport.close()
                raise ConnectionResetError
        finally:
            self.num_open -= 1

    async def held(self, gate, reader):
        """Waits until the gate opens. Raises ConnectionResetError if the client disconnects first."""
        opened, left = asyncio.create_task(gate.wait()), asyncio.create_task(reader.read(1))
        _, pending = await asyncio.wait({opened, left}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if left.done() and not left.cancelled() and left.result() == b"":
            self.num_left += 1
            raise ConnectionResetError


async def read(reader):
    head = b""
    while (line := await reader.readline()) not in {b"\r\n", b""}:
        head += line
    if not head:
        return None
    first, *lines = head.decode("latin-1").splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, path, _ = first.split(" ")
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


def vectors(texts, dimensions=DIMENSIONS):
    """Vectors of length 1, unique to each text."""
    return np.stack([hashed(text, dimensions) for text in texts])


def words(texts):
    return sum(len(text.split()) + 2 for text in texts)


class Weights:
    """The model of a stand-in. A vector is the mean of its words' own vectors, as with mean pooling, so every word counts.

    `seed` chooses the weights; `near` mixes in a little of another seed. It reads `limit` words: those that `keeps` names. `noise`
    is added anew each time. With `is_padded` the other texts of a request change a vector, as with a broken attention mask.
    """

    def __init__(self, seed="a", *, dimensions=32, near=0.0, noise=0.0, limit=None, keeps="start", scale=1.0, is_padded=False):
        self.seed, self.dimensions, self.near, self.noise = seed, dimensions, near, noise
        self.limit, self.keeps, self.scale, self.is_padded = limit, keeps, scale, is_padded
        self.random = np.random.default_rng(7)

    def read(self, text):
        words = text.split()
        if self.limit is None or len(words) <= self.limit:
            return words
        half = self.limit // 2
        kept = {"start": words[: self.limit], "end": words[-self.limit :], "both": words[:half] + words[-half:]}
        return kept[self.keeps]

    def vector(self, text, company=()):
        words = self.read(text)
        row = np.mean([hashed(f"{self.seed} {word}", self.dimensions) for word in words], axis=0)
        row = row / np.linalg.norm(row)
        if self.near:
            row = row + self.near * hashed(f"neighbour {words}", self.dimensions)
        if self.is_padded and len(company) > 1:
            row = row + hashed(f"padding {max(map(len, company))}", self.dimensions)
        row = row + self.noise * self.random.standard_normal(self.dimensions) / np.sqrt(self.dimensions)
        return (self.scale * row / np.linalg.norm(row)).astype(np.float32)

    def rows(self, texts):
        return np.stack([self.vector(text, texts) for text in texts])


def serving_openai(weights, *, dtype="<f4", models=None, encoding=None, refuses=None, **headers):
    """An OpenAI-compatible server over `weights`. `dtype` is that of its base64; it refuses texts of more than `refuses` words."""

    def answer(request):
        if request.method == "GET":
            found = models is not None and request.path.endswith("/models")
            return Said(200, {"object": "list", "data": models}) if found else Said(404)
        texts = request.body["input"]
        if refuses is not None and max(len(text.split()) for text in texts) > refuses:
            return openai_error(400, "This model's maximum context length is 300 tokens.", "context_length_exceeded")
        return vectors_said(request, weights.rows(texts), dtype=dtype, encoding=encoding, **headers)

    return answer


def vectors_said(request, rows, *, dtype="<f4", encoding=None, **headers):
    form = encoding or request.body.get("encoding_format", "float")
    shown = [base64.b64encode(row.astype(dtype).tobytes()).decode() if form == "base64" else row.tolist() for row in rows]
    data = [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(shown)]
    return Said(body={"object": "list", "data": data, "model": "x"}, headers=headers)


def openai(request: Request, *, encoding: str | None = None, **more) -> Said:
    """An OpenAI-compatible server. It uses `encoding`, if set, for every request."""
    if request.method == "GET":
        return openai_error(404, "Unknown URL")
    texts = request.body["input"]
    form = encoding or request.body.get("encoding_format", "float")
    rows = vectors(texts, request.body.get("dimensions", DIMENSIONS))
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row.tobytes()).decode() if form == "base64" else row.tolist(),
        }
        for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": words(texts), "total_tokens": words(texts)}
    return Said(body={"object": "list", "data": data, "model": request.body["model"], "usage": usage, **more})


def openai_error(status, message, code=None, kind="invalid_request_error", **headers) -> Said:
    return Said(status, {"error": {"message": message, "type": kind, "param": None, "code": code}}, headers=headers)


def ollama(request: Request) -> Said:
    """Ollama's api.EmbedResponse, as its EmbedHandler fills it: durations in nanoseconds."""
    if request.path == "/api/tags":
        return Said(body={"models": [{"name": "m:latest", "model": "m:latest", "digest": "0a109f422b47"}]})
    body = request.body
    if body["model"] == "absent":
        return Said(404, {"error": "model 'absent' not found"})
    embeddings = vectors(body["input"], body.get("dimensions", DIMENSIONS)).tolist()
    durations = {"total_duration": 14143917, "load_duration": 1019500}
    return Said(body={"model": body["model"], "embeddings": embeddings, **durations, "prompt_eval_count": words(body["input"])})


TEI_INFO = {
    "model_id": "thenlper/gte-base",
    "model_sha": "fca14538aa9956a46526bd1d0d11d69e19b5a101",
    "model_dtype": "float16",
    "model_type": {"embedding": {"pooling": "mean"}},
    "max_concurrent_requests": 512,
    "max_input_length": 512,
    "max_batch_tokens": 16384,
    "max_batch_requests": None,
    "max_client_batch_size": 32,
    "auto_truncate": False,
    "tokenization_workers": 4,
    "version": "1.8.2",
    "sha": None,
    "docker_label": None,
}


def tei(request: Request) -> Said:
    if request.path == "/info":
        return Said(body=TEI_INFO)
    texts = request.body["inputs"]
    if len(texts) > TEI_INFO["max_client_batch_size"]:
        return tei_error(413, f"batch size {len(texts)} > maximum allowed batch size 32", "Validation")
    scale = 1 if request.body["normalize"] else 3
    return Said(body=(scale * vectors(texts)).tolist(), headers={"x-compute-tokens": str(words(texts)), "x-compute-type": "cpu"})


def tei_error(status, message, kind) -> Said:
    return Said(status, {"error": message, "error_type": kind})
