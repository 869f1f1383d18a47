"""Estimates how many tokens a text has for an unknown tokenizer.

Four ASCII characters count as one token, as English has in the vocabularies of both BERT and OpenAI. A Chinese or Japanese
character counts as one token, three Cyrillic or Arabic ones as two. Deliberately simple: the estimate serves limits and splitting,
and replaces a `usage` that an upstream does not report.
"""

ASCII_CHARACTERS_PER_TOKEN = 4
SPECIAL_TOKENS = 2
# UTF-8 needs one byte more for a Cyrillic letter, two more for a Chinese one.
CHARACTERS_PER_EXTRA_BYTE = 1.5


def estimated_tokens(text: str) -> int:
    """At least 1; special tokens included."""
    num_characters: float = len(text)
    if not text.isascii():
        num_extra = len(text.encode("utf-8", "surrogatepass")) - len(text)
        num_characters += CHARACTERS_PER_EXTRA_BYTE * num_extra
    return SPECIAL_TOKENS + max(1, round(num_characters / ASCII_CHARACTERS_PER_TOKEN))


def apportion(total: int, weights: list[int]) -> list[int]:
    """Largest remainder method: divides `total` tokens among inputs by their estimates, at least 1 to each.

    An upstream reports one number for a whole request. So a text that was sent alone gets its true count, one among others its
    share, and the cache keeps that count with its vector. `total` is at least the number of inputs. The same inputs always get the
    same counts.
    """
    if len(weights) == 1:
        return [total]
    spare = total - len(weights)
    whole = sum(weights)
    shares = [spare * weight / whole for weight in weights]
    counts = [1 + int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: int(shares[index]) - shares[index])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def is_honest(num_tokens: int, texts: list[str]) -> bool:
    """Whether this number can be a count of tokens: some upstreams count none, and infinity counts characters."""
    num_characters = sum(map(len, texts))
    num_bytes = num_characters if all(map(str.isascii, texts)) else sum(len(text.encode("utf-8", "replace")) for text in texts)
    is_possible = len(texts) <= num_tokens <= num_bytes + MAX_EXTRA_TOKENS * len(texts)
    counts_characters = num_tokens == num_characters and num_tokens > 2 * sum(map(estimated_tokens, texts))
    return is_possible and not counts_characters


MAX_EXTRA_TOKENS = 256  # of an input: special tokens, and a prompt that the upstream puts before it
