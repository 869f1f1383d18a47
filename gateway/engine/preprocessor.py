"""The preprocessor: tokenises a request's texts, checks their lengths, and cuts them into windows, before any of them is queued."""

import threading
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Literal

from gateway.config import LimitSettings, LongInput, Task
from gateway.embedding.embedder import Inputs, Prepared
from gateway.embedding.long_input import windows
from gateway.embedding.prompt import INSTRUCTION, TASKS, instruction_format_of
from gateway.embedding.tokens import TokenizedText
from gateway.engine.encoder import NetworkInfo, Window
from gateway.engine.tokenizer import Tokenizer, slices
from gateway.errors import ClientError, InputTooLong, InvalidValue, OperatorError, RequestTooLong

MAX_INSTRUCTIONS = 64  # cached as tokens; an application has a few


@dataclass(frozen=True, slots=True)
class _Prompt:
    """The tokens that precede a text, and the text's route.

    `num_tokens` counts the tokens of a window that belong to the prompt, the special ones before it included.
    """

    text: str = ""
    ids: list[int] = field(default_factory=list)
    num_tokens: int = 0
    task: Task | Literal[""] = ""


NO_PROMPT = _Prompt()


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows to embed. `counts[i]` windows belong to input i. A window's weight is the number of text tokens in it."""

    windows: list[Window]
    counts: list[int]
    weights: list[int]

    def only(self, indices: list[int]) -> "Windows":
        """The windows of some inputs. Returns itself if `indices` are all of them, in order."""
        if len(indices) == len(self.counts):
            return self
        ends = list(accumulate(self.counts))
        parts = [slice(ends[index] - self.counts[index], ends[index]) for index in indices]
        return Windows(
            [window for part in parts for window in self.windows[part]],
            [self.counts[index] for index in indices],
            [weight for part in parts for weight in self.weights[part]],
        )


class Preprocessor:
    """Prepares the inputs of one model. Raises OperatorError for a model that reads nothing but its special tokens."""

    def __init__(  # noqa: PLR0913 - named, each of them
        self,
        network: NetworkInfo,
        tokenizer: Tokenizer,
        *,
        prompts: dict[str, str],
        rule: LongInput,
        limits: LimitSettings,
        instruction_format: str | None = None,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.rule = rule
        self.limits = limits
        self.window_tokens = network.max_tokens - tokenizer.num_special
        if self.window_tokens < 1:
            raise OperatorError(f"the model reads {network.max_tokens} tokens at once, which leaves none for a text")
        self.prompts = {name: self.prompt(text, self.task_of(name)) for name, text in prompts.items()}
        self.default_prompt = self.prompt(network.default_prompt)
        self.instruction_format = instruction_format or instruction_format_of(prompts)
        self.instruction_prompt = lru_cache(MAX_INSTRUCTIONS)(self.build_instruction_prompt)

    def prompt(self, text: str, task: Task | Literal[""] = "") -> _Prompt:
        if not text:
            return _Prompt(task=task) if task else NO_PROMPT
        ids = self.tokenizer.fast.encode(text, add_special_tokens=False).ids[: self.window_tokens]
        return _Prompt(text, ids, self.tokenizer.num_prompt_tokens(ids), task)

    def task_of(self, name: str) -> Task | Literal[""]:
        task = TASKS.get(name)
        return task if task in self.network.tasks else ""

    def build_instruction_prompt(self, instruction: str) -> _Prompt:
        """Raises InvalidValue if the prompt with this instruction takes more than half of a window."""
        prompt = self.prompt((self.instruction_format or INSTRUCTION).replace(INSTRUCTION, instruction), self.task_of("query"))
        if 2 * len(prompt.ids) > self.window_tokens:
            most = self.window_tokens // 2
            raise InvalidValue(
                f"Invalid value for 'instruction': with it, a prompt may be {most} tokens long.", param="instruction"
            )
        return prompt

    def refuse_too_many_characters(self, inputs: Inputs) -> None:
        """Refuses texts that cannot fit, by their number of characters alone, so that no time is spent on them.

        Raises InputTooLong or RequestTooLong.
        """
        max_chars = self.tokenizer.max_token_chars
        longest = max(range(len(inputs.texts)), key=lambda index: len(inputs.texts[index]))
        if len(inputs.texts[longest]) > self.limits.max_input_tokens * max_chars:
            raise InputTooLong(inputs.where(longest), self.limits.max_input_tokens)
        if sum(map(len, inputs.texts)) > self.limits.max_request_tokens * max_chars:
            raise RequestTooLong(f"more than {self.limits.max_request_tokens}", self.limits.max_request_tokens)

    def prompt_of(self, inputs: Inputs) -> _Prompt:
        if inputs.instruction is not None:
            return self.instruction_prompt(inputs.instruction)
        if inputs.input_type is None:
            return self.default_prompt
        return self.prompts.get(inputs.input_type) or self.prompt("", self.task_of(inputs.input_type))

    def is_short(self, inputs: Inputs) -> bool:
        """Whether tokenising the texts takes less time than handing them to another thread."""
        if inputs.token_ids is not None:
            return False
        return self.tokenizer.is_short(inputs.texts, num_more=len(self.prompt_of(inputs).text))

    def prepare(self, inputs: Inputs, abandoned: threading.Event) -> Prepared[Windows]:
        prompt = self.prompt_of(inputs)
        rule = inputs.long_input or self.rule
        contents = self.tokenize(inputs, prompt, rule, abandoned)
        counts = [len(content) + self.tokenizer.num_special for content in contents]
        cuts = [self.split_windows(content, prompt, rule) for content in contents]
        work = self.work_of(cuts, [self.num_text_tokens(window) for cut in cuts for window in cut])
        return Prepared(inputs, counts, [count > self.network.max_tokens for count in counts], rule, work=work)

    def work_of(self, cuts: list[list[Window]], weights: list[int]) -> Windows:
        return Windows([window for cut in cuts for window in cut], [len(cut) for cut in cuts], weights)

    def tokens(self, inputs: Inputs, abandoned: threading.Event, *, add_special_tokens: bool) -> list[TokenizedText]:
        """The tokens of each text with its prompt, in full. Raises InputTooLong or RequestTooLong beyond the limits."""
        prompt = self.prompt_of(inputs)
        texts = [prompt.text + text for text in inputs.texts] if prompt.text else inputs.texts
        found: list[TokenizedText] = []
        num_tokens = 0
        for part in slices(texts):
            if abandoned.is_set():
                return found
            for tokens in self.tokenizer.tokens(part, add_special_tokens=add_special_tokens):
                if len(tokens.ids) > self.limits.max_input_tokens:
                    raise InputTooLong(inputs.where(len(found)), self.limits.max_input_tokens)
                num_tokens += len(tokens.ids)
                found.append(tokens)
            if num_tokens > self.limits.max_request_tokens:
                raise RequestTooLong(f"more than {self.limits.max_request_tokens}", self.limits.max_request_tokens)
        return found

    def tokenize(self, inputs: Inputs, prompt: _Prompt, rule: LongInput, abandoned: threading.Event) -> list[list[int]]:
        """The token ids of each input.

        Raises ClientError as soon as an input or the request is known to be refused; the error carries the tokens counted so far.
        """
        texts = [prompt.text + text for text in inputs.texts] if prompt.text else inputs.texts
        contents: list[list[int]] = []
        num_tokens = 0
        for part in self.tokenizer.content_ids(texts, abandoned):
            counts = [len(content) + self.tokenizer.num_special for content in part]
            num_tokens += sum(counts)
            try:
                for index, count in enumerate(counts, start=len(contents)):
                    self.check(inputs, index, count, rule)
                if num_tokens > self.limits.max_request_tokens:
                    is_all = len(contents) + len(part) == len(texts)
                    raise RequestTooLong(str(num_tokens) if is_all else f"more than {num_tokens}", self.limits.max_request_tokens)
            except ClientError as error:
                raise error.after(num_tokens=num_tokens) from None
            contents += part
        return contents

    def check(self, inputs: Inputs, index: int, num_tokens: int, rule: LongInput) -> None:
        if num_tokens == 0:  # of a model without special tokens
            raise InvalidValue(f"Invalid '{inputs.where(index)}': the model reads no token in it.", param=inputs.field)
        if num_tokens > self.network.max_tokens and rule == "error":
            raise InputTooLong(inputs.where(index), self.network.max_tokens)
        if num_tokens > self.limits.max_input_tokens:
            raise InputTooLong(inputs.where(index), self.limits.max_input_tokens)

    def split_windows(self, content: list[int], prompt: _Prompt, rule: LongInput) -> list[Window]:
        """Cuts a text with its prompt into windows: the first as sentence-transformers does; the others repeat the prompt.

        So each is what the model was trained to read. A prompt of more than half a window is in the first one only, as it would
        leave the text too little room.
        """
        first, rest = content[: self.window_tokens], content[self.window_tokens :]
        parts = [self.window(first, prompt)]
        if rest and rule == "chunk":
            again = prompt if 2 * len(prompt.ids) <= self.window_tokens else _Prompt(task=prompt.task)
            slices = windows(len(rest), max_tokens=self.window_tokens - len(again.ids), rule=rule)
            parts += [self.window(again.ids + rest[each], again) for each in slices]
        return parts

    def window(self, content: list[int], prompt: _Prompt) -> Window:
        return Window(self.tokenizer.with_special(content), prompt.num_tokens, prompt.task)

    def num_text_tokens(self, window: Window) -> int:
        """How many tokens of a window are neither special nor its prompt's."""
        return len(window) - max(window.num_prompt_tokens, len(self.tokenizer.prefix)) - len(self.tokenizer.suffix)
