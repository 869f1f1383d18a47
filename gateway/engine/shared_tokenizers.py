"""Tokenizers that several models share: those with the same file have one in memory, and it goes with the last of them."""

import hashlib
import threading
from typing import Any
from weakref import WeakValueDictionary

from gateway.engine.tokenizer import Tokenizer

KEY = "tokenizers"  # in BackendContext.shared


class SharedTokenizers:
    """Thread-safe. It keeps no tokenizer alive: the models do, of every configuration that still has requests."""

    def __init__(self) -> None:
        self.by_digest: WeakValueDictionary[bytes, Tokenizer] = WeakValueDictionary()
        self.lock = threading.Lock()  # held while one is made: two models of one file then make one

    def get(self, tokenizer_json: str) -> Tokenizer:
        """The tokenizer of this JSON. Making one of 250,000 words takes seconds."""
        digest = hashlib.sha256(tokenizer_json.encode("utf-8", "surrogatepass")).digest()
        with self.lock:
            known = self.by_digest.get(digest)
            if known is None:
                known = self.by_digest[digest] = Tokenizer(tokenizer_json)
            return known


def tokenizers_of(shared: dict[str, Any]) -> SharedTokenizers:
    """Those of one gateway: `shared` is what its embedders share."""
    found: SharedTokenizers = shared.setdefault(KEY, SharedTokenizers())
    return found
