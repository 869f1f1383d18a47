"""An LRU cache of vectors, bounded in bytes. Only the event loop uses it.

A key is a digest of all that a vector depends on: the model's scope and fingerprint, the exact text, `long_input`, `input_type`,
`instruction`, `normalize`, a reranker's query and bound of tokens. An input given as token ids has these in place of the text.
Cutting and encoding come later: one entry serves every `dimensions` and every `encoding_format`. A key begins with a digest of the
scope alone, so that all entries of a scope can be dropped.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

from gateway.embedding.embedder import Description, Inputs

KEY_BYTES, SCOPE_BYTES = 32, 8
# The cost of an entry besides its row: key, table slot, three small objects. A test compares it with what Python allocates.
ENTRY_BYTES = 330

IDS = b"\xff"  # no text in UTF-8 has this byte

Key = bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A vector's float32 bytes, and the token count of its input."""

    row: bytes
    num_tokens: int
    is_long: bool


class VectorCache:
    """Evicts the least recently used entry first. With 0 bytes it stores nothing."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.entries: OrderedDict[Key, Entry] = OrderedDict()

    def get(self, key: Key) -> Entry | None:
        entry = self.entries.get(key)
        if entry is not None:
            self.entries.move_to_end(key)
        return entry

    def put(self, key: Key, entry: Entry) -> None:
        size = ENTRY_BYTES + len(entry.row)
        if key in self.entries or size > self.max_bytes:
            return
        self.entries[key] = entry
        self.num_bytes += size
        self.make_room()

    def drop(self, scope: bytes) -> None:
        """Removes all entries of a scope. It scans the whole cache: 10 ms for 100,000 entries, once for each change of a model."""
        for key in [key for key in self.entries if key.startswith(scope)]:
            self.num_bytes -= ENTRY_BYTES + len(self.entries.pop(key).row)

    def resize(self, max_bytes: int) -> None:
        """Sets the bound, and evicts what exceeds it; 0 empties the cache."""
        self.max_bytes = max_bytes
        self.make_room()

    def make_room(self) -> None:
        while self.num_bytes > self.max_bytes:
            _, oldest = self.entries.popitem(last=False)
            self.num_bytes -= ENTRY_BYTES + len(oldest.row)


def scope_of(about: Description) -> bytes:
    """The prefix of all keys of a model."""
    return _digest_of_scope(about.scope or about.fingerprint)


@lru_cache(maxsize=256)  # one for each model, and a few that were
def _digest_of_scope(scope: str) -> bytes:
    return hashlib.blake2b(scope.encode(), digest_size=SCOPE_BYTES).digest()


def seed_of(inputs: Inputs, about: Description) -> bytes:
    """The part of the key that all inputs of a request share. The model's own `long_input` and the same one explicit are equal."""
    rule = inputs.long_input or about.long_input
    instruction = inputs.instruction or ""
    # The instruction behind its length and the query at the end, as both may contain any character.
    own = (rule, inputs.input_type or "", str(len(instruction)), instruction, str(inputs.normalize))
    query = () if inputs.query is None else (str(inputs.max_document_tokens), "query", inputs.query)
    seed = "\0".join((about.scope, about.fingerprint, *own, *query)).encode("utf-8", "surrogatepass")
    return scope_of(about) + hashlib.blake2b(seed, digest_size=KEY_BYTES - SCOPE_BYTES).digest()


def keys_of(inputs: Inputs, seed: bytes) -> list[Key]:
    scope, size = seed[:SCOPE_BYTES], KEY_BYTES - SCOPE_BYTES
    contents = [text.encode("utf-8", "surrogatepass") for text in inputs.texts]
    if inputs.token_ids is not None:
        parts = zip(contents, inputs.token_ids, strict=True)
        contents = [content if ids is None else IDS + repr(ids).encode() for content, ids in parts]
    return [scope + hashlib.blake2b(content, key=seed, digest_size=size).digest() for content in contents]
