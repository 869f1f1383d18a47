"""A request larger than an upstream takes is cut into parts, in order."""


def parts(token_counts: list[int], *, max_inputs: int, max_tokens: int) -> list[slice]:
    """Slices of neighbouring inputs: each of at most `max_inputs`, and of `max_tokens` unless one input alone has more."""
    if len(token_counts) <= max_inputs and sum(token_counts) <= max_tokens:
        return [slice(0, len(token_counts))]
    found: list[slice] = []
    start, tokens = 0, 0
    for index, count in enumerate(token_counts):
        if index > start and (index - start >= max_inputs or tokens + count > max_tokens):
            found.append(slice(start, index))
            start, tokens = index, 0
        tokens += count
    return [*found, slice(start, len(token_counts))]
