"""One service as its documentation, its source or a recording shows it, and a stand-in that answers as it does.

Lengths are scaled: every model reads 300 words. How many inputs and tokens one request may hold is what the service says.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from gateway.testing.fakes import hashed
from gateway.testing.upstream_server import Said, words

READ_WORDS = 300
DIMENSIONS = 16
EVERYWHERE = {"model", "input", "encoding_format"}
PATHS = {"openai": "/embeddings", "ollama": "/api/embed", "tei": "/embed"}


@dataclass(frozen=True)
class Service:
    """`too_long` is None where it cuts in silence, `wrong_key` where it asks for no key; `bytes_are` what base64 is met with.

    `fields` are those that a body may have beside EVERYWHERE; `refuses_field` answers any other. `check` is what else it demands.
    `usage` is how many tokens it counts of some texts, None where it tells none.
    """

    name: str
    address: str
    too_long: Said | None
    wrong_key: Said | None
    busy: Said
    protocol: Literal["openai", "ollama", "tei"] = "openai"
    max_inputs: int | None = None
    too_many: Callable[[int], Said] = lambda _: Said(400)
    max_request_tokens: int | None = None
    too_many_tokens: Said | None = None
    key_header: str = "authorization"
    query: dict[str, str] = field(default_factory=dict)
    bytes_are: Literal["given", "ignored"] | Said = "given"
    fields: frozenset[str] = frozenset()
    refuses_field: Callable[[str], Said] | None = None
    check: Callable[[dict[str, Any]], Said | None] = lambda _: None
    leaves_out_zero: bool = False
    usage: Callable[[list[str]], dict[str, int] | None] = lambda texts: {
        "prompt_tokens": words(texts),
        "total_tokens": words(texts),
    }
    get: Callable[[str], Said] = lambda _: Said(404)
    busy_seconds: float = 1.0


def tokens_of(text: str) -> int:
    """As the services count: four characters of English a token."""
    return len(text) // 4 + 1


@cache
def of_word(word: str) -> np.ndarray:
    return hashed(word, DIMENSIONS)


def vectors(texts: list[str], read_words: int | None = None) -> np.ndarray:
    """Of length 1: each the mean of its words' own."""
    rows = np.stack([np.mean([of_word(word) for word in text.split()[:read_words]], axis=0) for text in texts])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def answering(service: Service, key: str | None):
    """What a `Standin` answers with. `key` is the one that it takes, None any."""
    path = urlsplit(service.address).path

    def answer(request):
        asked = urlsplit(request.path)
        if key is not None and request.headers.get(service.key_header) not in {key, f"Bearer {key}"}:
            return service.wrong_key
        if request.method == "GET":
            return service.get(asked.path.removeprefix(path))
        if asked.path != path + PATHS[service.protocol] or dict(parse_qsl(asked.query)) != service.query:
            return Said(404)
        return refusal_of(service, request.body) or reply_of(service, request.body)

    return answer


def refusal_of(service: Service, body: dict[str, Any]) -> Said | None:
    texts = texts_of(body)
    for name in set(body) - EVERYWHERE - service.fields:
        if service.refuses_field is not None:
            return service.refuses_field(name)
    if (refused := service.check(body)) is not None:
        return refused
    if service.max_inputs is not None and len(texts) > service.max_inputs:
        return service.too_many(len(texts))
    if service.max_request_tokens is not None and sum(map(tokens_of, texts)) > service.max_request_tokens:
        return service.too_many_tokens
    if isinstance(service.bytes_are, Said) and body.get("encoding_format") == "base64":
        return service.bytes_are
    is_long = any(len(text.split()) > READ_WORDS for text in texts)
    return service.too_long if is_long and not cuts(service, body) else None


def cuts(service: Service, body: dict[str, Any]) -> bool:
    return service.too_long is None or body.get("truncate") is True


def texts_of(body: dict[str, Any]) -> list[str]:
    return body["inputs"] if "inputs" in body else body["input"]


def reply_of(service: Service, body: dict[str, Any]) -> Said:
    texts = texts_of(body)
    rows = vectors(texts, READ_WORDS)
    if service.protocol == "tei":
        return Said(body=rows.tolist(), headers={"x-compute-tokens": str(words(texts))})
    if service.protocol == "ollama":
        return Said(body={"model": body["model"], "embeddings": rows.tolist(), "prompt_eval_count": words(texts)})
    as_bytes = body.get("encoding_format") == "base64" and service.bytes_are == "given"
    data = [{"object": "embedding", "embedding": shown(row, as_bytes), "index": index} for index, row in enumerate(rows)]
    if service.leaves_out_zero:
        del data[0]["index"]
    usage = service.usage(texts)
    return Said(body={"object": "list", "data": data, "model": body["model"], **({"usage": usage} if usage else {})})


def shown(row: np.ndarray, as_bytes: bool) -> str | list[float]:
    return base64.b64encode(row.tobytes()).decode() if as_bytes else row.tolist()
