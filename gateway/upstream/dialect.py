"""A dialect describes one kind of server: how a request is rendered, how its reply is read, and what is known beforehand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.config import LongInput
from gateway.embedding.embedder import ModelKind
from gateway.upstream.validation import ParsedResponse

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class UpstreamQuery:
    """One request to an upstream. `settings` are its row's; `as_base64` asks for base64 if the dialect knows it.

    `input_type` names one of the row's prompts, or a purpose without a prompt. `query` is what a reranker compares the texts with.
    """

    texts: list[str]
    model: str
    settings: Any
    rule: LongInput
    normalize: bool = True
    as_base64: bool = True
    knows_normalize: bool = False  # whether its body may have `normalize`, as another gateway's may
    input_type: str | None = None
    query: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """What an upstream reports of itself. `identity` is its own name for its vectors, "" if it has none."""

    max_inputs: int | None = None
    max_tokens: int | None = None
    identity: str = ""


@dataclass(frozen=True, slots=True)
class ServerApi:
    """One API of a server. None means the dialect's own.

    `path` is beside /v1 if `is_at_root`, else it is put behind the row's address. `fields` are added to every body.
    `are_probabilities`: a reranker's scores, which it put through a sigmoid, so that they lie between 0 and 1.
    """

    name: str
    path: str | None = None
    body: Callable[[UpstreamQuery], dict[str, Any]] | None = None
    read: Callable[[bytes, Headers], ParsedResponse] | None = None
    is_at_root: bool = True
    fields: tuple[tuple[str, Any], ...] = ()
    are_probabilities: bool = False


SAME = ServerApi("same")


@dataclass(frozen=True, slots=True)
class Dialect:
    """`kind` says what the server is asked for: vectors, or a reranker's scores. `apis` are the forms in which it may be asked: the
    first that a server understands is used.

    `remedy` says how to add a model that is missing there. `is_unit`: its vectors have length 1 whatever the request says;
    `honours_normalize`: they do only if the request says so.

    `read_info` reads the reply of `info_path`, given the model's name. If `requires_info`, a server without that reply is not of
    this kind. `read` raises InvalidResponse.
    """

    name: str
    path: str
    body: Callable[[UpstreamQuery], dict[str, Any]]
    read: Callable[[bytes, Headers], ParsedResponse]
    rules: tuple[LongInput, ...]
    max_inputs: int
    kind: ModelKind = "embedder"
    apis: tuple[ServerApi, ...] = ()
    knows_base64: bool = False
    info_path: str | None = None
    read_info: Callable[[bytes, str], UpstreamLimits] | None = None
    requires_info: bool = False
    is_unit: bool = False
    honours_normalize: bool = False
    remedy: str = ""
