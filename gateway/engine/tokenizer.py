"""Text to token ids, off the event loop, given up when its client leaves."""

import threading
from itertools import takewhile

from tokenizers import Tokenizer as FastTokenizer

SLICE = 64  # texts tokenised between two looks at whether anybody still waits


class Tokenizer:
    """A model's own tokenizer. What it gives are content tokens; `prefix` and `suffix` are the special ones around them."""

    def __init__(self, tokenizer_json: str) -> None:
        self.fast: FastTokenizer = FastTokenizer.from_str(tokenizer_json)
        # MiniLM's file carries truncation to 128 and padding to 128 of its own, while the model reads 256.
        self.fast.no_truncation()
        self.fast.no_padding()
        probe = self.fast.encode("a")
        is_special = probe.special_tokens_mask
        self.prefix: list[int] = probe.ids[: len(list(takewhile(bool, is_special)))]
        self.suffix: list[int] = probe.ids[len(probe.ids) - len(list(takewhile(bool, reversed(is_special)))) :]
        self.num_special = len(self.prefix) + len(self.suffix)
        self.special_ids = {number for number, token in self.fast.get_added_tokens_decoder().items() if token.special}
        # No token covers more characters than the longest word of the vocabulary has; runs of white space, and words that are no
        # words to the model, can. So a text longer than this times the limit in tokens is refused without being read.
        self.max_token_chars = max(map(len, self.fast.get_vocab()))

    def to_json(self) -> str:
        """As another Tokenizer can be made of it; some 40 MB for 250,000 words."""
        return str(self.fast.to_str())

    def content_ids(self, texts: list[str], abandoned: threading.Event) -> list[list[int]]:
        """The token ids of each text, whatever its length; cut short when `abandoned` is set. Releases the GIL."""
        if len(texts) == 1:  # on this thread, without the pool's hand-over
            return [self.fast.encode(texts[0], add_special_tokens=False).ids]
        ids: list[list[int]] = []
        for start in range(0, len(texts), SLICE):
            if abandoned.is_set():
                break
            ids += [
                encoding.ids for encoding in self.fast.encode_batch_fast(texts[start : start + SLICE], add_special_tokens=False)
            ]
        return ids

    def num_prompt_tokens(self, prompt: list[int]) -> int:
        """How many tokens at the start of a text are those of its prompt, given the prompt's own content ids.

        Counted as sentence-transformers does: of the prompt alone, with special tokens, less one if the last is special. So the
        special tokens before a text belong to its prompt, and the one after it does not.
        """
        ids = self.with_special(prompt)
        return len(ids) - sum(last in self.special_ids for last in ids[-1:])

    def with_special(self, content: list[int]) -> list[int]:
        return [*self.prefix, *content, *self.suffix]
