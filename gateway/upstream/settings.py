"""Settings of a row of the backends `openai`, `ollama` and `tei`."""

from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from gateway.config import InstructionFormat, LongInput, PromptName, Secret

OneRule = Literal["error"]
UpstreamTask = Literal["embed", "rerank"]
TwoRules = Literal["error", "end"]
MAX_SECONDS = 3600

Positive = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1)]


class UpstreamSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings that all three share. Their order here is their order in the example file, which explains every setting."""

    url: Annotated[
        str | None,
        Meta(
            description="Where the server is, up to what its own paths begin with: https://api.openai.com/v1 for"
            " openai, http://127.0.0.1:11434 for ollama, http://127.0.0.1:8080 for tei."
        ),
    ] = None
    urls: Annotated[
        tuple[str, ...],
        Meta(
            description="Instead of url: several servers of the very same model. Each request goes to the less busy of two of them."
        ),
    ] = ()
    key: Annotated[Secret | None, Meta(description="The key it asks for, from a variable or a file.")] = None
    key_header: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9-]+$",
            description='The header the key is sent in: after "Bearer" in authorization, alone in any other, such as api-key.',
        ),
    ] = "authorization"
    headers: Annotated[
        dict[str, str | Secret],
        Meta(description='Further headers of every request; a value may be { env = "NAME" } or { file = "PATH" }.'),
    ] = {}
    dimensions: Annotated[
        Positive | None,
        Meta(description="Ask for vectors of so many dimensions, of a model that can; by default they have what it gives."),
    ] = None
    max_tokens: Annotated[
        Positive | None,
        Meta(description="Tokens the model reads at once, as clients see it; by default what the server says, or 8192."),
    ] = None
    prompts: Annotated[
        dict[PromptName, str],
        Meta(description="Put before a text whose request names one in input_type: query, document, or any other name."),
    ] = {}
    instruction_format: Annotated[
        InstructionFormat | None,
        Meta(
            description="What is put before a query whose request has an instruction, with {instruction} where it stands. By"
            ' default as the query prompt above shows it, if that begins with "Instruct: " as Qwen3\'s does.',
        ),
    ] = None
    max_inputs: Annotated[
        Positive | None,
        Meta(
            description="Inputs of one request to it; larger ones are cut into several. By default what the server says, or 2048"
            " for openai and 1000 for its rerankers, 512 for ollama, 32 for tei.",
        ),
    ] = None
    max_request_tokens: Annotated[
        int, Meta(ge=1, description="Tokens, as estimated, of one request to it; larger ones are cut into several.")
    ] = 200_000
    max_body_bytes: Annotated[
        Positive | None,
        Meta(
            description="Bytes of the body of one request to it; larger ones are cut into several. By default there is no limit."
            " Of this, max_inputs and max_request_tokens, what a server refuses is learned, kept for an hour and logged."
        ),
    ] = None
    max_parallel: Annotated[
        int, Meta(ge=1, le=64, description="Of the several that one request was cut into, how many are sent at once.")
    ] = 4
    max_connections: Annotated[
        int, Meta(ge=1, le=10_000, description="Requests to it at once; what is beyond waits, within its own time.")
    ] = 64
    connect_timeout_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=MAX_SECONDS,
            description="How long a connection may take, TLS included, and how long what was sent on it may stay unacknowledged.",
        ),
    ] = 5.0
    read_timeout_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=MAX_SECONDS,
            description="How long it may be silent, and then how long its reply may take to arrive."
            " server.request_timeout_seconds bounds a request as a whole.",
        ),
    ] = 60.0
    retry: Annotated[
        bool,
        Meta(
            description="Whether what failed by a broken connection, 502, 503, 504, or 429 with a short Retry-After is sent once"
            " more, to another of its urls if there are several. Never for more than a tenth of all requests,"
            " beside those whose connection was lost without a word."
        ),
    ] = True
    breaker_failures: Annotated[
        int,
        Meta(
            ge=1,
            description="After so many failures in a row, or when half of at least 20 within ten seconds failed, an url cools"
            " down for a while, and requests get 503 at once.",
        ),
    ] = 5
    breaker_seconds: Annotated[
        float,
        Meta(gt=0, le=30, description="How long at first; twice as long after every failed try, up to 4 seconds."),
    ] = 1.0
    probe_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_SECONDS,
            description="How long vectors of a model that was changed there may still be served. A server that is asked is probed"
            " with one short text (some 8 tokens, which it may charge for) before that time is over; where it cannot be, requests"
            " get 503 from then on, also for what is cached. 0: only after a failure.",
        ),
    ] = 60.0
    proxy: Annotated[str | None, Meta(description="An HTTP proxy to go through. Those of the environment are not used.")] = None
    proxy_credentials: Annotated[Secret | None, Meta(description="Its user and password, as user:password.")] = None
    ca_file: Annotated[str | None, Meta(description="A PEM file of certificate authorities to trust beside the system's own.")] = (
        None
    )

    def __post_init__(self) -> None:
        if (self.url is None) == (not self.urls):
            raise ValueError("url or urls is needed, and not both")
        for name, address in [*(("url", each) for each in self.addresses), *([("proxy", self.proxy)] if self.proxy else [])]:
            if fault := fault_of(address):
                raise ValueError(f"{name}: {fault}")
        if len(set(self.addresses)) < len(self.addresses):
            raise ValueError("urls: one is there twice")

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(url.rstrip("/") for url in (self.urls or (self.url or "",)))


# Of a row that embeds: a reranker gives one score, and gets its query and documents as they are.
OF_EMBEDDERS = ("dimensions", "prompts", "instruction_format", "input_types")


def _refuse_settings_of_embedders(settings: "OpenAISettings | TEISettings") -> None:
    """Raises ValueError if a row of `task = "rerank"` has settings that are for vectors."""
    if settings.task == "rerank" and (given := [name for name in OF_EMBEDDERS if getattr(settings, name, None)]):
        raise ValueError(f'{", ".join(given)}: not with task = "rerank", as a reranker gives a score and no vector')


def fault_of(address: str) -> str | None:
    """Says what is wrong with an address, without the address: it may contain a password. Returns None if nothing is."""
    try:
        parts = urlsplit(address)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return "it is not an address such as http://host:port"
    if parts.scheme not in {"http", "https"} or not parts.hostname or not has_port:
        return "it is not an address such as http://host:port"
    if "@" in parts.netloc:
        return "a password does not belong into an address: use key, headers or proxy_credentials"
    return "an address has no query and no fragment here" if parts.query or parts.fragment else None


class OpenAISettings(UpstreamSettings, frozen=True):
    task: Annotated[
        UpstreamTask,
        Meta(
            description="What it is asked for: vectors (embed), or the scores of a query and documents (rerank), by /rerank behind"
            " url: Cohere, Jina, Voyage, vLLM, infinity, llama.cpp, another gateway; NVIDIA's, Mixedbread's and DashScope's"
            " paths are tried too."
        ),
    ] = "embed"
    model: Annotated[Name | None, Meta(description="The model's name there; by default the name it has here.")] = None
    long_input: Annotated[
        OneRule,
        Meta(
            description="Texts longer than the model reads are refused: the protocol knows no other way. A server that cuts them in"
            " silence is found out when one is first asked for; there a request may say end, if the beginning is what is kept."
        ),
    ] = "error"
    query: Annotated[
        dict[str, str],
        Meta(description='Put behind the address of every request, such as Azure\'s { "api-version" = "2024-10-21" }.'),
    ] = {}
    extra_body: Annotated[
        dict[str, Any],
        Meta(
            description="Further fields of every request's body, such as { truncate_prompt_tokens = -1 } for vLLM or"
            ' { long_input = "chunk" } for another gateway.'
        ),
    ] = {}
    input_types: Annotated[
        dict[PromptName, dict[str, Any]],
        Meta(
            description="For servers that put prompts before texts themselves: the fields of the body that say so, by the"
            ' input_type of a request, such as { query = { task = "retrieval.query" } }. They outrank extra_body,'
            " which is all that a request without input_type sends."
        ),
    ] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        bodies = {"extra_body": self.extra_body, **{f"input_types.{name}": fields for name, fields in self.input_types.items()}}
        for name, fields in bodies.items():
            if own := OWN_FIELDS[self.task] & set(fields):
                raise ValueError(f"{name}: {', '.join(sorted(own))} is the gateway's own to set")
            _refuse_other_types(name, fields)
        _refuse_settings_of_embedders(self)


OWN_FIELDS: dict[UpstreamTask, set[str]] = {
    "embed": {"input", "model", "encoding_format", "dimensions"},
    "rerank": {"query", "documents", "passages", "input", "model", "top_n", "top_k", "return_documents", "raw_scores"},
}

# The type of a vector's numbers, in all servers' words. The gateway reads float32 and quantizes by itself: int8 in base64, read so,
# would be noise.
TYPE_FIELDS = frozenset({"output_dtype", "embedding_type", "embedding_types", "encoding_type", "embed_dtype", "endianness"})
FLOAT32_WORDS = (None, "float", "float32", "base64", "little", "native")


def _refuse_other_types(name: str, fields: dict[str, Any]) -> None:
    """Raises ValueError if a field of the body asks a server for other numbers than float32."""
    for field in sorted(TYPE_FIELDS & set(fields)):
        words = fields[field] if isinstance(fields[field], list) else [fields[field]]
        if any(word not in FLOAT32_WORDS for word in words):
            raise ValueError(f"{name}: {field}: vectors are read as little-endian float32, and made smaller here (output_dtype)")


class OllamaSettings(UpstreamSettings, frozen=True):
    model: Annotated[Name | None, Meta(description="The model's name there; by default the name it has here.")] = None
    long_input: Annotated[
        TwoRules,
        Meta(
            description="Texts longer than the model reads are refused (error), or cut there (end), which no reply shows."
            " A request may choose otherwise."
        ),
    ] = "error"
    keep_alive: Annotated[
        str | int | None,
        Meta(description='How long Ollama keeps the model in memory after a request: "10m", seconds, -1 for ever.'),
    ] = None


class TEISettings(UpstreamSettings, frozen=True):
    task: Annotated[
        UpstreamTask, Meta(description="Whether its model gives vectors (embed), or scores of a query and documents (rerank).")
    ] = "embed"
    long_input: Annotated[
        TwoRules,
        Meta(
            description="Texts longer than the model reads are refused (error), or cut there (end), which no reply shows."
            " A request may choose otherwise."
        ),
    ] = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_settings_of_embedders(self)


AnySettings = OpenAISettings | OllamaSettings | TEISettings
RULES: dict[str, tuple[LongInput, ...]] = {"openai": get_args(OneRule), "ollama": get_args(TwoRules), "tei": get_args(TwoRules)}
