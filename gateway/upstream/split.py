"""A request larger than an upstream takes is cut into parts, in order."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PartSize:
    """Of some inputs, or the most that one request may hold. `num_bytes` are those of its body; None where nobody asked."""

    num_inputs: int
    num_tokens: int
    num_bytes: int | None = None


def parts(token_counts: list[int], most: PartSize, *, byte_counts: list[int] | None = None) -> list[slice]:
    """Slices of neighbouring inputs, none larger than `most` unless it is one input alone.

    `byte_counts` are what each input takes of `most.num_bytes`.
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
