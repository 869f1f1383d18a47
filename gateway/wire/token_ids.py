"""Decodes cl100k_base token ids to text: LangChain's `OpenAIEmbeddings` sends ids, whatever the model's name.

Decoding needs only the ranks: 100,256 byte strings, the n-th being token n. `cl100k_base.xz` contains them, each after one byte
with its length. NOTICE names their source, and `gateway/tests/wire` proves them equal to the published file by its SHA-256.
"""

import base64
import lzma
from functools import cache
from importlib import resources

from gateway.errors import InputTooLong, InvalidValue, RequestTooLong

# OpenAI's own limits, in cl100k tokens; LangChain sends up to both.
MAX_INPUT_IDS = 8192
MAX_REQUEST_IDS = 300_000

NUM_RANKS = 100_256
SPECIAL_TOKENS = {
    100257: b"<|endoftext|>",
    100258: b"<|fim_prefix|>",
    100259: b"<|fim_middle|>",
    100260: b"<|fim_suffix|>",
    100276: b"<|endofprompt|>",
}

# All valid ids, as ranges that include both ends.
TOKEN_ID_RANGES = ((0, NUM_RANKS - 1), (100257, 100260), (100276, 100276))
VALID_IDS = ", ".join(f"{first} to {last}" if first < last else str(first) for first, last in TOKEN_ID_RANGES)

# Clients choose the encoding by the model's name, as tiktoken does; the default is cl100k_base. These names and prefixes mean
# another encoding. Source: tiktoken 0.12, tiktoken/model.py; a test compares them with the installed tiktoken.
OTHER_NAMES = {
    "o200k_base": {"o1", "o3", "o4-mini", "gpt-5", "gpt-4.1", "gpt-4o"},
    "p50k_base": {
        "text-davinci-003", "text-davinci-002", "code-davinci-002", "code-davinci-001", "code-cushman-002", "code-cushman-001",
        "davinci-codex", "cushman-codex",
    },
    "r50k_base": {
        "text-davinci-001", "text-curie-001", "text-babbage-001", "text-ada-001", "davinci", "curie", "babbage", "ada",
        "text-similarity-davinci-001", "text-similarity-curie-001", "text-similarity-babbage-001", "text-similarity-ada-001",
        "text-search-davinci-doc-001", "text-search-curie-doc-001", "text-search-babbage-doc-001", "text-search-ada-doc-001",
        "code-search-babbage-code-001", "code-search-ada-code-001",
    },
    "p50k_edit": {"text-davinci-edit-001", "code-davinci-edit-001"},
    "gpt2": {"gpt2", "gpt-2"},
}  # fmt: skip
OTHER_PREFIXES = {
    "o200k_base": (
        "o1-", "o3-", "o4-mini-", "gpt-5", "gpt-4.5-", "gpt-4.1-", "chatgpt-4o-", "gpt-4o-", "ft:gpt-4o",
    ),
    "o200k_harmony": ("gpt-oss-",),
}  # fmt: skip


def other_encoding(model: str) -> str | None:
    """The encoding that clients use for token arrays to a model of this name; None if it is cl100k_base."""
    for encoding, names in OTHER_NAMES.items():
        if model in names:
            return encoding
    return next((encoding for encoding, prefixes in OTHER_PREFIXES.items() if model.startswith(prefixes)), None)


def texts_of(id_arrays: list[list[int]], *, is_array: bool) -> list[str]:
    """One text for each array of ids; broken UTF-8 sequences become U+FFFD.

    Raises InvalidValue if an array is empty or an id is no token, InputTooLong or RequestTooLong beyond OpenAI's limits.
    """
    total = sum(map(len, id_arrays))
    for index, ids in enumerate(id_arrays):
        check(ids, where=f"input[{index}]" if is_array else "input")
    if total > MAX_REQUEST_IDS:
        raise RequestTooLong(str(total), MAX_REQUEST_IDS)
    table = bytes_of_token()
    return [b"".join([table[token_id] for token_id in ids]).decode("utf-8", errors="replace") for ids in id_arrays]


def check(ids: list[int], *, where: str) -> None:
    if not ids:
        raise InvalidValue(f"Invalid '{where}': an array of token ids must not be empty.", param="input")
    if len(ids) > MAX_INPUT_IDS:
        raise InputTooLong(where, MAX_INPUT_IDS)
    if min(ids) >= 0 and max(ids) < NUM_RANKS:
        return
    for position, token_id in enumerate(ids):
        if not 0 <= token_id < NUM_RANKS and token_id not in SPECIAL_TOKENS:
            raise InvalidValue(
                f"Invalid '{where}': the integer at position {position} is not a token of cl100k_base ({VALID_IDS}).",
                param="input",
            )


@cache
def bytes_of_token() -> dict[int, bytes]:
    """The bytes of every token. Loaded on first use: a gateway without token arrays saves the 0.1 s and 15 MB."""
    packed = lzma.decompress(resources.files("gateway.wire").joinpath("cl100k_base.xz").read_bytes())
    table: dict[int, bytes] = {}
    position = 0
    while position < len(packed):
        length = packed[position]
        table[len(table)] = packed[position + 1 : position + 1 + length]
        position += 1 + length
    return table | SPECIAL_TOKENS


def published_ranks() -> bytes:
    """cl100k_base.tiktoken as OpenAI publishes it: a line for each token, with its bytes in base64 and its rank."""
    table = bytes_of_token()
    return b"".join(b"%b %d\n" % (base64.b64encode(table[rank]), rank) for rank in range(NUM_RANKS))
