"""The rules for a text longer than the model reads: `chunk`, `end` or `error`. Texts that fit are never changed.

chunk   split into windows the model can read; the windows' vectors are averaged by their token counts
end     keep the first window, as sentence-transformers does
error   refuse the input
"""

from gateway.config import LongInput


def windows(num_tokens: int, *, max_tokens: int, rule: LongInput) -> list[slice]:
    """The slices of a text's token ids that are embedded. Neither number counts special tokens.

    `max_tokens` is at least 1. A text without any tokens is one empty window. With `error` a long text has no windows.
    """
    if num_tokens <= max_tokens:
        return [slice(0, num_tokens)]
    if rule == "chunk":
        return [slice(start, min(start + max_tokens, num_tokens)) for start in range(0, num_tokens, max_tokens)]
    return [slice(0, max_tokens)] if rule == "end" else []
