"""Follows TextTokenizer for every model whose tokenizer is here: in a pool of threads, unless the texts are short."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from gateway.embedding.embedder import Inputs
from gateway.embedding.tokens import TokenizedText
from gateway.engine import token_ids
from gateway.engine.preprocessor import Preprocessor


class PooledTokenizer:
    """Has the preprocessor and the pool of an embedder. Threads stop between slices of texts once the client has left."""

    def __init__(self, preprocessor: Preprocessor, pool: ThreadPoolExecutor) -> None:
        self.preprocessor = preprocessor
        self.pool = pool

    async def tokenize(self, inputs: Inputs, *, add_special_tokens: bool) -> list[TokenizedText]:
        self.preprocessor.refuse_too_many_characters(inputs)
        abandoned = threading.Event()
        if self.preprocessor.is_short(inputs):
            return self.preprocessor.tokens(inputs, abandoned, add_special_tokens=add_special_tokens)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self.pool, lambda: self.preprocessor.tokens(inputs, abandoned, add_special_tokens=add_special_tokens)
            )
        finally:
            abandoned.set()

    async def decode(self, inputs: Inputs, *, skip_special_tokens: bool) -> list[str]:
        return await asyncio.get_running_loop().run_in_executor(
            self.pool, lambda: token_ids.decode(self.preprocessor, inputs, skip_special_tokens=skip_special_tokens)
        )
