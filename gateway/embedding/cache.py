"""Vectors that were made already, by what they depend on; bounded in bytes, used on the event loop alone.

A key is a digest of the model's scope and fingerprint, the exact text, `long_input`, `input_type`, `instruction` and `normalize`.
What is cut or encoded for a client is no part of it, so one entry serves every `dimensions` and every `encoding_format`. It begins
with a digest of the scope alone, so that all of a scope can be dropped.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from gateway.embedding.embedder import Description, Inputs

KEY_BYTES, SCOPE_BYTES = 32, 8
# What an entry costs beside its row: key, table slot, three small objects. A test holds it against what Python allocates.
ENTRY_BYTES = 330

Key = bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A vector's float32 bytes, and what its input counts."""

    row: bytes
    num_tokens: int
    is_long: bool


class VectorCache:
    """The entry longest unused goes first. 0 bytes hold nothing."""

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
        """Forgets what is kept under a scope. It looks at all there is: 10 ms for 100,000 entries, once a change."""
        for key in [key for key in self.entries if key.startswith(scope)]:
            self.num_bytes -= ENTRY_BYTES + len(self.entries.pop(key).row)

    def resize(self, max_bytes: int) -> None:
        """From now on it holds so much; 0 empties it."""
        self.max_bytes = max_bytes
        self.make_room()

    def make_room(self) -> None:
        while self.num_bytes > self.max_bytes:
            _, oldest = self.entries.popitem(last=False)
            self.num_bytes -= ENTRY_BYTES + len(oldest.row)


def scope_of(about: Description) -> bytes:
    """What all the keys of a model begin with."""
    return hashlib.blake2b((about.scope or about.fingerprint).encode(), digest_size=SCOPE_BYTES).digest()


def seed_of(inputs: Inputs, about: Description) -> bytes:
    """What all the keys of a request share. A rule that is asked for and the same rule as the model's own are one."""
    rule = inputs.long_input or about.long_input
    own = (rule, inputs.input_type or "", inputs.instruction or "", str(inputs.normalize))
    parts = (about.scope, about.fingerprint, *own)
    return scope_of(about) + hashlib.blake2b("\0".join(parts).encode(), digest_size=KEY_BYTES - SCOPE_BYTES).digest()


def keys_of(texts: list[str], seed: bytes) -> list[Key]:
    scope, size = seed[:SCOPE_BYTES], KEY_BYTES - SCOPE_BYTES
    contents = [text.encode("utf-8", "surrogatepass") for text in texts]
    return [scope + hashlib.blake2b(content, key=seed, digest_size=size).digest() for content in contents]
