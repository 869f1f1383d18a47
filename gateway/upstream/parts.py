"""Cuts a request that is larger than an upstream accepts into parts, in order."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PartSize:
    """The size of some inputs, or the largest that one request may have. `num_bytes` are its body's, None if they do not matter."""

    num_inputs: int
    num_tokens: int
    num_bytes: int | None = None


def parts(token_counts: list[int], most: PartSize, *, byte_counts: list[int] | None = None) -> list[slice]:
    """Cuts greedily: each part takes inputs until the next would not fit. Input i takes `byte_counts[i]` of `most.num_bytes`.

    Returns slices of neighbouring inputs, none larger than `most` unless it is a single input.
    """
    num_bytes = byte_counts if byte_counts is not None and most.num_bytes is not None else [0] * len(token_counts)
    max_bytes = most.num_bytes or 0
    found: list[slice] = []
    start, tokens, size = 0, 0, 0
    for index, count in enumerate(token_counts):
        is_full = index - start >= most.num_inputs or tokens + count > most.num_tokens or size + num_bytes[index] > max_bytes
        if index > start and is_full:
            found.append(slice(start, index))
            start, tokens, size = index, 0, 0
        tokens, size = tokens + count, size + num_bytes[index]
    return [*found, slice(start, len(token_counts))]
