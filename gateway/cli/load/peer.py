"""The server under test, called as an OpenAI client would."""

import asyncio
import time
from dataclasses import dataclass

import httpx2
import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.cli.load import reply
from gateway.errors import OperatorError

OK, UNAUTHORIZED = 200, 401
MIN_KEY_CHARS = 8
NO_KEY = " (no key was sent: `gateway bench --help` says where one is looked for)"
LASTING = range(300, 500)  # redirects included: a key is not sent to another address
MAY_PASS = {408, 409, 425, 429}  # the same request may succeed later


class BenchRequest(Struct, kw_only=True):
    """The body of every request; only `input` differs."""

    model: str
    input: list[str] = []
    encoding_format: str
    dimensions: int | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class BenchResponse:
    """One reply. `error` is its kind, for example "429 rate_limit_exceeded"; None for a correct reply."""

    seconds: float
    num_tokens: int = 0
    error: str | None = None
    is_broken: bool = False  # there was no answer


class BenchTarget:
    """The server under test. `http` has its address and the key. A request without an answer in `timeout_seconds` is an error."""

    def __init__(self, http: httpx2.AsyncClient, *, key: str | None, timeout_seconds: float) -> None:
        self.http = http
        self.key = key
        self.timeout_seconds = timeout_seconds
        self.dimensions: int | None = None  # of the first vectors: later ones may not differ

    async def first_model(self) -> str:
        """The first name in the server's list of models. Raises OperatorError if it lists none."""
        response = await self.check_reachable("GET", "models")
        name = reply.first_model(response.content) if response.status_code == OK else None
        if name is None:
            raise OperatorError(f"{self.http.base_url}models names no model: choose one with --model")
        return name

    async def try_out(self, request: BenchRequest) -> None:
        """Sends one request before the load. Raises OperatorError for an error that every request would get."""
        await self.check_reachable("POST", "embeddings", content=msgspec.json.encode(request))

    async def check_reachable(self, method: str, path: str, *, content: bytes = b"") -> httpx2.Response:
        try:
            response = await self.response(method, path, content=content)
        except TimeoutError:
            raise OperatorError(f"{self.http.base_url}{path} did not answer within {self.timeout_seconds:g} seconds") from None
        except httpx2.RequestError as error:
            reason = self.without_key(reply.one_line(str(error))) or type(error).__name__
            raise OperatorError(f"{self.http.base_url}{path} cannot be reached: {reason}") from None
        if response.status_code in LASTING and response.status_code not in MAY_PASS:
            told = reply.refusal(response.content)
            words = " ".join(part for part in (str(response.status_code), told.code, told.message) if part)
            hint = NO_KEY if response.status_code == UNAUTHORIZED and self.key is None else ""
            raise OperatorError(self.without_key(f"{self.http.base_url}{path} answered {words}{hint}"))
        return response

    async def embed(self, request: BenchRequest) -> BenchResponse:
        content = msgspec.json.encode(request)
        began = time.perf_counter()
        try:
            response = await self.response("POST", "embeddings", content=content)
        except TimeoutError:
            return BenchResponse(time.perf_counter() - began, error="timeout")
        except httpx2.RequestError as error:
            return BenchResponse(time.perf_counter() - began, error=f"connection {type(error).__name__}", is_broken=True)
        seconds = time.perf_counter() - began
        if response.status_code != OK:
            code = reply.refusal(response.content).code
            return BenchResponse(seconds, error=self.without_key(f"{response.status_code} {code}".strip()))
        try:
            self.dimensions, num_tokens = reply.check_reply(
                response.content,
                num_inputs=len(request.input),
                encoding_format=request.encoding_format,
                dimensions=self.dimensions if request.dimensions is UNSET else request.dimensions,
            )
        except reply.WrongReply as wrong:
            return BenchResponse(seconds, error=f"{OK} {wrong}")
        return BenchResponse(seconds, num_tokens)

    async def response(self, method: str, path: str, *, content: bytes) -> httpx2.Response:
        async with asyncio.timeout(
            self.timeout_seconds
        ):  # for the whole request; an HTTP client's own timeouts are for single steps
            return await self.http.request(method, path, content=content, headers={"Content-Type": "application/json"})

    def without_key(self, text: str) -> str:
        """The text with the key masked, as a server may quote it. A key shorter than any real one is not masked."""
        return text.replace(self.key, "***") if self.key and len(self.key) >= MIN_KEY_CHARS else text


def open_session(base_url: str, *, key: str | None, num_connections: int) -> httpx2.AsyncClient:
    """An HTTP client that keeps a connection for each of the load's clients."""
    limits = httpx2.Limits(max_connections=num_connections, max_keepalive_connections=num_connections, keepalive_expiry=None)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=None, limits=limits)


def base_url(text: str) -> str:
    """An SDK's base_url; adds /v1 if the address has no path. Raises OperatorError, which does not repeat the address."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo or url.query or url.fragment:
        raise OperatorError("--url must be http[s]://HOST[:PORT][/PATH], without a user, a password or a query")
    return str(url.copy_with(path=url.path.rstrip("/").removesuffix("/embeddings") or "/v1"))
