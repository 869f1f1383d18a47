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
from gateway.config import LimitSettings, LongInput
from gateway.embedding.cache import Key, keys_of, seed_of
from gateway.embedding.cached import first_positions, is_large
from gateway.embedding.embedder import Description, Inputs
from gateway.engine.preprocessors import prepare_windows, preprocessor_of, preprocessor_of_texts
from gateway.engine.text_tokenizer import PooledTokenizer
from gateway.engine.tokenizer import Tokenizer
from gateway.processes.known_inputs import KnownInputs

Result = TypeVar("Result")

TOKENIZER_THREADS = 2  # of one front: the tokenizers use every core by themselves
NEVER_ABANDONED = threading.Event()


@dataclass(frozen=True, slots=True)
class DistinctInputs:
    """The distinct inputs of one request, as an EmbedCall has them. `places` are those of EmbedCall.

    `packed` are their windows; None for inputs that were embedded before and that the cache is thought to have.
    """

    token_counts: list[int]
    is_long: list[bool]
    rule: LongInput
    digests: list[Key]
    places: list[int]
    packed: NDArray[np.int32] | None = None

    @property
    def num_tokens(self) -> int:
        return sum(self.token_counts)


class FrontTokenizing:
    """The tokenizer of the model with this `fingerprint`."""

    def __init__(self, info: ReplicaInfo, limits: LimitSettings) -> None:
        """Blocks for tens of milliseconds."""
        self.fingerprint = info.description.fingerprint
        self.pool = ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix="tokenizer")
        self.preprocessor = preprocessor_of(info.network, Tokenizer(info.tokenizer_json), info.settings, limits)
        self.texts = PooledTokenizer(preprocessor_of_texts(self.preprocessor), self.pool)
        self.known = KnownInputs()

    async def prepare(self, inputs: Inputs, about: Description, *, has_cache: bool) -> DistinctInputs:
        """Counts the tokens, and cuts texts that are new into windows. Raises what `Preprocessor.prepare` raises.

        It works on the event loop if the texts are short. Without a cache nothing is known.
        """
        keys = await self.keys(inputs, about)
        if has_cache and (known := self.known.find(keys)) is not None and len(set(keys)) == len(keys):
            token_counts, is_long = [count for count, _ in known], [is_long for _, is_long in known]
            return DistinctInputs(token_counts, is_long, inputs.long_input or self.preprocessor.rule, keys, [])
        return await self.tokenize(inputs, keys)

    async def keys(self, inputs: Inputs, about: Description) -> list[Key]:
        if is_large(inputs):
            return await self.in_thread(lambda: keys_of(inputs, seed_of(inputs, about)))
        return keys_of(inputs, seed_of(inputs, about))

    async def tokenize(self, inputs: Inputs, keys: list[Key]) -> DistinctInputs:
        """Cuts the texts into windows."""
        if self.preprocessor.is_short(inputs):
            return self.windows(inputs, keys, NEVER_ABANDONED)
        abandoned = threading.Event()
        try:
            return await self.in_thread(lambda: self.windows(inputs, keys, abandoned))
        finally:
            abandoned.set()  # a client that left needs no more tokens

    def windows(self, inputs: Inputs, keys: list[Key], abandoned: threading.Event) -> DistinctInputs:
        distinct: dict[Key, int] = {}
        places = [distinct.setdefault(key, len(distinct)) for key in keys]
        is_repeated = len(distinct) < len(keys)
        own = inputs.only(first_positions(places)) if is_repeated else inputs
        self.preprocessor.refuse_too_many_characters(own)
        prepared = prepare_windows(self.preprocessor, own, abandoned)
        if abandoned.is_set():
            raise asyncio.CancelledError
        packed = pack(own, prepared.work)
        return DistinctInputs(
            prepared.token_counts, prepared.is_long, prepared.rule, list(distinct), places if is_repeated else [], packed
        )

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)
