"""Text to token ids, in slices: so that tokenising stops early if the client leaves or the request is refused."""

import threading
import time
from collections.abc import Iterator
from itertools import takewhile

from tokenizers import Tokenizer as FastTokenizer

from gateway.cpus import num_cpus
from gateway.embedding.tokens import TokenizedText
from gateway.engine.word_ids import NoWordIds, word_ids_of

# Texts, and characters, of a slice. Between slices, callers check whether the client still waits, and whether the tokens counted so
# far may be served. A token takes 115 bytes until its slice is done, and the worst text has one for two characters: 15 MB. Without
# the second bound one refused body of 10 KB, gzip for 10 MB of text, took 600 MB.
SLICE = 64
SLICE_CHARS = 256 * 1024
# Characters of all texts of a request that are tokenised on the event loop. A thread costs the loop 40 microseconds and the client
# 200. Measured: 256 characters take 20 to 70 for English, 200 for Chinese, the worst; 320 of ASCII take 12 if all words are known.
SHORT_CHARS, SHORT_ASCII_CHARS = 256, 320
WORD_CHARS = 2048  # that are put together from known words, on any thread: 70 microseconds, in which no other thread can work

# Measured: 250,000 pieces of a Unigram take 493 MB, 150,000 words of a BPE 131, 120,000 of a WordPiece 48, MiniLM's 30,522 13.
BYTES_PER_WORD = {"Unigram": 2000, "BPE": 900, "WordPiece": 400}
SCARCE_CPUS = 2  # to so many, CPU time is what limits a bulk
YIELD_SECONDS = 1e-6  # in fact 60 microseconds: the event loop, if it waits for the GIL, gets it between two slices


class Tokenizer:
    """A model's own tokenizer. It gives content tokens; `prefix` and `suffix` are the special tokens around them."""

    def __init__(self, tokenizer_json: str, *, has_spare_cores: bool | None = None) -> None:
        """With `has_spare_cores`, the texts of a bulk are tokenised on other cores, without the GIL; else by known words. That
        takes a fifth of the CPU time, but more of the time in which no other thread can work. The default is by the number of CPUs.
        """
        self.has_spare_cores = num_cpus() > SCARCE_CPUS if has_spare_cores is None else has_spare_cores
        self.fast: FastTokenizer = FastTokenizer.from_str(tokenizer_json)
        # MiniLM's file sets truncation and padding to 128, while the model reads 256.
        self.fast.no_truncation()
        self.fast.no_padding()
        self.words = word_ids_of(self.fast)
        probe = self.fast.encode("a")
        is_special = probe.special_tokens_mask
        self.prefix: list[int] = probe.ids[: len(list(takewhile(bool, is_special)))]
        self.suffix: list[int] = probe.ids[len(probe.ids) - len(list(takewhile(bool, reversed(is_special)))) :]
        self.num_special = len(self.prefix) + len(self.suffix)
        self.special_ids = {number for number, token in self.fast.get_added_tokens_decoder().items() if token.special}
        # No token covers more characters than the longest word of the vocabulary; only runs of white space and unknown words can.
        # So a text longer than this times the token limit is refused without being tokenised.
        vocabulary = self.fast.get_vocab()
        self.max_token_chars = max(map(len, vocabulary))
        self.max_id = max(vocabulary.values())

    @property
    def num_bytes(self) -> int:
        """Its memory."""
        return tokenizer_bytes(type(self.fast.model).__name__, self.max_id + 1)

    def to_json(self) -> str:
        """The JSON from which another Tokenizer can be made; some 40 MB for 250,000 words."""
        return str(self.fast.to_str())

    def is_short(self, texts: list[str], *, num_more: int = 0) -> bool:
        """Whether tokenising takes less time than handing the texts to another thread. Each has `num_more` characters more."""
        num_chars = sum(map(len, texts)) + num_more * len(texts)
        if num_chars <= SHORT_CHARS:
            return True
        return num_chars <= SHORT_ASCII_CHARS and not isinstance(self.words, NoWordIds) and all(map(str.isascii, texts))

    def ids(self, text: str) -> list[int]:
        """The token ids of a text, untruncated. Releases the GIL for a long one, which `encode` does not."""
        found = self.words.ids(text) if len(text) <= WORD_CHARS else None
        if found is not None:
            return found
        if len(text) <= SHORT_CHARS:
            return list(self.fast.encode(text, add_special_tokens=False).ids)
        [encoding] = self.fast.encode_batch_fast([text], add_special_tokens=False)
        return list(encoding.ids)

    def content_ids(self, texts: list[str], abandoned: threading.Event) -> Iterator[list[list[int]]]:
        """Yields the token ids of each text, untruncated, slice by slice. Stops once `abandoned` is set. Releases the GIL."""
        if len(texts) == 1 or sum(map(len, texts)) <= SHORT_ASCII_CHARS:  # on this thread, without the pool's hand-over
            yield [self.ids(text) for text in texts]
            return
        for part in slices(texts):
            if abandoned.is_set():
                return
            if self.has_spare_cores:
                yield self.ids_without_gil(part)
            else:
                yield self.ids_of_words(part)
                time.sleep(YIELD_SECONDS)

    def ids_without_gil(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.fast.encode_batch_fast(texts, add_special_tokens=False)]

    def ids_of_words(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text by its words, where that is possible, for a fifth of the CPU time."""
        found = [self.words.ids(text) if len(text) <= WORD_CHARS else None for text in texts]
        others = iter(self.ids_without_gil([text for text, ids in zip(texts, found, strict=True) if ids is None]))
        return [next(others) if ids is None else ids for ids in found]

    def has(self, token_id: int) -> bool:
        return 0 <= token_id <= self.max_id and self.fast.id_to_token(token_id) is not None

    def decode(self, ids: list[int], *, skip_special_tokens: bool = True) -> str:
        return str(self.fast.decode(ids, skip_special_tokens=skip_special_tokens))

    def tokens(self, texts: list[str], *, add_special_tokens: bool) -> list[TokenizedText]:
        encodings = zip(texts, self.fast.encode_batch(texts, add_special_tokens=add_special_tokens), strict=True)
        return [
            TokenizedText(text, each.ids, each.tokens, each.offsets, [bool(mask) for mask in each.special_tokens_mask])
            for text, each in encodings
        ]

    def num_prompt_tokens(self, prompt: list[int]) -> int:
        """How many tokens at the start of a text belong to its prompt, given the prompt's content ids.

        Counts as sentence-transformers does: the tokens of the prompt alone, special ones included, minus one if the last is
        special. So the special tokens before a text belong to its prompt, and the one after the text does not.
        """
        ids = self.with_special(prompt)
        return len(ids) - sum(last in self.special_ids for last in ids[-1:])

    def with_special(self, content: list[int]) -> list[int]:
        return [*self.prefix, *content, *self.suffix]


def tokenizer_bytes(kind: str, num_words: int) -> int:
    """The memory of a tokenizer, by its kind and vocabulary; of an unknown kind that of a BPE."""
    return num_words * BYTES_PER_WORD.get(kind, BYTES_PER_WORD["BPE"])


def slices(texts: list[str], *, num_more: int = 0) -> Iterator[list[str]]:
    """Slices of the texts in their order, each of at most SLICE texts and SLICE_CHARS characters; a single text may be longer.

    Each text counts `num_more` characters more, of a text that is tokenized with it.
    """
    start, num_chars = 0, 0
    for index, text in enumerate(texts):
        num_chars += len(text) + num_more
        if index > start and (num_chars > SLICE_CHARS or index - start == SLICE):
            yield texts[start:index]
            start, num_chars = index, len(text) + num_more
    yield texts[start:]
