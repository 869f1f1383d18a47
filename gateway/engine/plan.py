"""What is to be done for a request, before any of it is done: texts into counted, checked windows of token ids."""

import threading
from dataclasses import dataclass

from gateway.config import LimitSettings
from gateway.embedding.embedder import Inputs, Prepared
from gateway.embedding.long_input import Rule, windows
from gateway.engine.encoder import EncoderInfo
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import InputTooLong, OperatorError, RequestTooLong


@dataclass(frozen=True, slots=True)
class Windows:
    """Token ids ready for the device, special tokens included, and how many of them belong to each input."""

    token_ids: list[list[int]]
    counts: list[int]


class Planner:
    """Raises OperatorError for a model that reads nothing but its special tokens."""

    def __init__(
        self, info: EncoderInfo, tokenizer: Tokenizer, *, prompts: dict[str, str], rule: Rule, limits: LimitSettings
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.rule = rule
        self.limits = limits
        self.window_tokens = info.max_tokens - tokenizer.num_special
        if self.window_tokens < 1:
            raise OperatorError(f"the model reads {info.max_tokens} tokens at once, which leaves none for a text")

    def refuse_too_many_characters(self, inputs: Inputs) -> None:
        """Texts that cannot fit are refused before any time is spent on them."""
        max_chars = self.tokenizer.max_token_chars
        longest = max(range(len(inputs.texts)), key=lambda index: len(inputs.texts[index]))
        if len(inputs.texts[longest]) > self.limits.max_input_tokens * max_chars:
            raise InputTooLong(inputs.where(longest), self.limits.max_input_tokens)
        if sum(map(len, inputs.texts)) > self.limits.max_request_tokens * max_chars:
            raise RequestTooLong(f"more than {self.limits.max_request_tokens}", self.limits.max_request_tokens)

    def planned(self, inputs: Inputs, abandoned: threading.Event) -> Prepared:
        prompt = self.prompts.get(inputs.input_type, "") if inputs.input_type else self.info.default_prompt
        contents = self.tokenizer.content_ids([prompt + text for text in inputs.texts] if prompt else inputs.texts, abandoned)
        counts = [len(content) + self.tokenizer.num_special for content in contents]
        rule = inputs.long_input or self.rule
        is_long = [count > self.info.max_tokens for count in counts]
        for index, count in enumerate(counts):
            if is_long[index] and rule == "error":
                raise InputTooLong(inputs.where(index), self.info.max_tokens)
            if count > self.limits.max_input_tokens:
                raise InputTooLong(inputs.where(index), self.limits.max_input_tokens)
        if sum(counts) > self.limits.max_request_tokens:
            raise RequestTooLong(str(sum(counts)), self.limits.max_request_tokens)
        cuts = [windows(len(content), max_tokens=self.window_tokens, rule=rule) for content in contents]
        token_ids = [
            self.tokenizer.with_special(content[cut]) for content, slices in zip(contents, cuts, strict=True) for cut in slices
        ]
        return Prepared(inputs, counts, is_long, rule, work=Windows(token_ids, [len(slices) for slices in cuts]))
