"""Reads why a server refused a request: from its status, its structured code, and known phrases of its text.

Phrases decide nothing that `bisection` could not find out without them. They save requests if they are right, and say whether an
input that fails alone is too long.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gateway.upstream.error_body import ErrorReply

Size = Literal["inputs", "bytes", "tokens"]

OK, TOO_LARGE = 200, 413
BAD_REQUEST = frozenset({400, 413, 422})
# Never caused by inputs: keys, payment, a missing model or URL; a server's load; timeouts (522 and 524 are Cloudflare's, 598 and
# 599 those of older proxies).
NEVER_OF_INPUTS = frozenset({401, 402, 403, 404, 407, 408, 425, 429, 503, 504, 521, 522, 523, 524, 598, 599})

SURELY_TOO_LONG = re.compile(
    r"maximum (context|input) length|context length|context_length_exceeded|exceed_context_size|must have less than \d+ tokens"
    r"|input is too (long|large)|\binput \(\d+ tokens\) is (too large|larger)|too many tokens|longer than the maximum",
    re.IGNORECASE,
)
# For an input that is known to fail alone: any word for a size together with any word for too much of it.
A_SIZE = re.compile(r"token|length|context|charact|\blong|large|size|bytes", re.IGNORECASE)
TOO_MUCH = re.compile(
    r"exceed|\brange\b|too[ _](long|large|many|big)|max|limit|longer|larger|greater|at most|less than|over\b", re.IGNORECASE
)
MAX_TOKENS = re.compile(r"(?:maximum (?:context|input) length is|must have less than) (\d{1,9}) tokens")
INPUT_INDEX = re.compile(r"\binput\[(\d{1,6})\]")
MAX_INPUTS = re.compile(r"maximum allowed batch size (\d{1,6})|array length must be (\d{1,6}) or less|at most (\d{1,6}) items")
OF_TOKENS = re.compile(r"max_tokens_per_request|tokens per request", re.IGNORECASE)
NO_BASE64 = re.compile(r"encoding_format|base64", re.IGNORECASE)
NOT_A_NUMBER = re.compile(r"\bNaN\b")


@dataclass(frozen=True, slots=True)
class UpstreamRefusal:
    """`status` is the reply's, 200 if it has no usable vectors. `max_inputs`, `max_tokens` and `index` are what its text names.

    `hint` is the size that its status or its text is about.
    """

    status: int
    words: str = ""
    max_inputs: int | None = None
    max_tokens: int | None = None
    index: int | None = None
    hint: Size | None = None

    @property
    def is_too_long_for_sure(self) -> bool:
        return self.status in BAD_REQUEST | {500} and SURELY_TOO_LONG.search(self.words) is not None

    @property
    def is_too_long(self) -> bool:
        """For an input that fails alone. The status 413 means too large, whatever the text."""
        is_said = A_SIZE.search(self.words) is not None and TOO_MUCH.search(self.words) is not None
        return is_said or self.status == TOO_LARGE or SURELY_TOO_LONG.search(self.words) is not None

    @property
    def is_not_a_number(self) -> bool:
        return NOT_A_NUMBER.search(self.words) is not None

    @property
    def no_base64(self) -> bool:
        return self.status in BAD_REQUEST and NO_BASE64.search(self.words) is not None

    def input_index(self, num_inputs: int) -> int | None:
        """The index of the input that is meant, of `num_inputs`. Returns None if that has to be found out."""
        if num_inputs == 1:
            return 0
        return self.index if self.index is not None and self.index < num_inputs else None


def may_hang_on_inputs(status: int) -> bool:
    return status >= 400 and status not in NEVER_OF_INPUTS  # noqa: PLR2004 - where errors begin


def read_refusal(status: int, error_reply: ErrorReply, texts: Iterable[str] = ()) -> UpstreamRefusal:
    """Ignores a limit that one of the `texts` contains: some servers repeat what they refuse, and it would be learned for all."""
    words = f"{error_reply.words} {error_reply.code or ''}"
    found, index, limit = MAX_INPUTS.search(words), INPUT_INDEX.search(words), MAX_TOKENS.search(words)
    is_echo = found is not None and any(found[0].casefold() in text.casefold() for text in texts)
    return UpstreamRefusal(
        status,
        words,
        max_inputs=int(next(filter(None, found.groups()))) if found and status in BAD_REQUEST and not is_echo else None,
        max_tokens=int(limit[1]) if limit else None,
        index=int(index[1]) if index else None,
        hint="bytes" if status == TOO_LARGE else "tokens" if OF_TOKENS.search(words) else None,
    )
