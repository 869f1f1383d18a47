"""A dialect is a row: how one kind of server is asked, how its reply is read, and what is known of it beforehand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.config import LongInput
from gateway.upstream.validation import ParsedResponse

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class UpstreamQuery:
    """One call to an upstream. `settings` are the row's own; `as_base64` asks for bytes where the dialect knows them.

    `input_type` is the name of one of the row's prompts, or of a purpose that has none.
    """

    texts: list[str]
    model: str
    settings: Any
    rule: LongInput
    normalize: bool = True
    as_base64: bool = True
    knows_normalize: bool = False  # whether `normalize` may be a field of its body: of another gateway's
    input_type: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """What an upstream tells of itself; `identity` are its words for which vectors it gives, "" where it has none."""

    max_inputs: int | None = None
    max_tokens: int | None = None
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """`read` raises InvalidResponse. `remedy` mends a model that is missing there.

    `info_path` leads to what `read_info` understands, given the model's name; where `must_tell`, a server without it is none of
    this kind. `is_unit`: its vectors are of length 1 whatever is asked.
    """

    name: str
    path: str
    body: Callable[[UpstreamQuery], dict[str, Any]]
    read: Callable[[bytes, Headers], ParsedResponse]
    rules: tuple[LongInput, ...]
    max_inputs: int
    knows_base64: bool = False
    info_path: str | None = None
    read_info: Callable[[bytes, str], UpstreamLimits] | None = None
    must_tell: bool = False
    is_unit: bool = False
    remedy: str = ""
