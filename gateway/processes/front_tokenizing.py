"""A front's own tokenizer of one model, made from what the engine process tells: it cuts texts exactly as the engine would."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.calls.message import ReplicaInfo
from gateway.calls.packing import pack
from gateway.config import LimitSettings
from gateway.embedding.cache import Key, keys_of, seed_of
from gateway.embedding.cached import first_positions, is_large
from gateway.embedding.embedder import Description, Inputs, Prepared
from gateway.engine.preprocessors import prepare_windows, preprocessor_of, preprocessor_of_texts
from gateway.engine.text_tokenizer import PooledTokenizer
from gateway.engine.tokenizer import Tokenizer

Result = TypeVar("Result")

TOKENIZER_THREADS = 2  # of one front: the tokenizers use every core by themselves
NEVER_ABANDONED = threading.Event()


@dataclass(frozen=True, slots=True)
class DistinctWindows:
    """The distinct inputs of one request, as the engine process embeds them. `places` are those of EmbedCall."""

    prepared: Prepared[object]
    packed: NDArray[np.int32]
    digests: list[Key]
    places: list[int]


class FrontTokenizing:
    """The tokenizer of the model with this `fingerprint`."""

    def __init__(self, info: ReplicaInfo, limits: LimitSettings) -> None:
        """Blocks for tens of milliseconds."""
        self.fingerprint = info.description.fingerprint
        self.pool = ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix="tokenizer")
        tokenizer = Tokenizer(info.tokenizer_json, has_spare_cores=False)  # the other fronts have them
        self.preprocessor = preprocessor_of(info.network, tokenizer, info.settings, limits)
        self.texts = PooledTokenizer(preprocessor_of_texts(self.preprocessor), self.pool)

    async def prepare(self, inputs: Inputs, about: Description) -> DistinctWindows:
        """Cuts the texts into windows, on the event loop if they are short. Raises what `Preprocessor.prepare` raises."""
        if not is_large(inputs) and self.preprocessor.is_short(inputs):
            return self.windows(inputs, about, NEVER_ABANDONED)
        abandoned = threading.Event()
        try:
            return await self.in_thread(lambda: self.windows(inputs, about, abandoned))
        finally:
            abandoned.set()  # a client that left needs no more tokens

    def windows(self, inputs: Inputs, about: Description, abandoned: threading.Event) -> DistinctWindows:
        keys = keys_of(inputs, seed_of(inputs, about))
        distinct: dict[Key, int] = {}
        places = [distinct.setdefault(key, len(distinct)) for key in keys]
        is_repeated = len(distinct) < len(keys)
        own = inputs.only(first_positions(places)) if is_repeated else inputs
        self.preprocessor.refuse_too_many_characters(own)
        prepared = prepare_windows(self.preprocessor, own, abandoned)
        if abandoned.is_set():
            raise asyncio.CancelledError
        return DistinctWindows(prepared, pack(own, prepared.work), list(distinct), places if is_repeated else [])

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)
