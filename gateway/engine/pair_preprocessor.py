"""The preprocessor of a reranker: joins a request's query with each document, checks their lengths, and cuts them into windows."""

import threading

from gateway.config import LimitSettings, LongInput
from gateway.embedding.embedder import Inputs, Prepared
from gateway.embedding.long_input import windows
from gateway.engine.encoder import NetworkInfo, Window
from gateway.engine.pairs import Pair, Question, pair_tokenizer
from gateway.engine.preprocessor import Windows
from gateway.engine.tokenizer import SHORT_CHARS, Tokenizer
from gateway.errors import ClientError, InputTooLong, OperatorError, RequestTooLong


class PairPreprocessor:
    """Prepares the inputs of one reranker: `Inputs.texts` are the documents that `Inputs.query` is compared with.

    A long document is cut by `chunk` into windows that each have the whole query, by `end` as CrossEncoder cuts.
    `instruction_format` is None for a model whose pairs have no place for an instruction.
    """

    def __init__(self, network: NetworkInfo, tokenizer: Tokenizer, *, rule: LongInput, limits: LimitSettings) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.pairs = pair_tokenizer(network, tokenizer)
        self.rule = rule
        self.limits = limits
        self.instruction_format = "{instruction}" if "instruction" in network.pair_format[1::2] else None
        if network.max_tokens <= self.num_fixed_tokens(""):
            raise OperatorError(f"the model reads {network.max_tokens} tokens at once, which leaves none for a document")

    def num_fixed_tokens(self, instruction: str) -> int:
        """How many tokens a pair has besides those of its query and its document."""
        return len(self.pairs.question("", instruction).head) + len(self.pairs.suffix)

    def instruction_of(self, inputs: Inputs) -> str:
        """The text at the instruction's place, or, without such a place, before the query."""
        if inputs.instruction is not None and self.instruction_format:
            return inputs.instruction
        return self.network.prompts.get(inputs.input_type or "") or self.network.default_prompt

    def refuse_too_many_characters(self, inputs: Inputs) -> None:
        """As `Preprocessor.refuse_too_many_characters`. The query counts once for each document, as its tokens do."""
        most = self.limits.max_input_tokens * self.tokenizer.max_token_chars
        query = len(inputs.query or "")
        if query > most:
            raise InputTooLong("query", self.limits.max_input_tokens)
        longest = max(range(len(inputs.texts)), key=lambda index: len(inputs.texts[index]))
        if len(inputs.texts[longest]) > most:
            raise InputTooLong(inputs.where(longest), self.limits.max_input_tokens)
        if sum(len(text) + query for text in inputs.texts) > self.limits.max_request_tokens * self.tokenizer.max_token_chars:
            raise RequestTooLong(f"more than {self.limits.max_request_tokens}", self.limits.max_request_tokens)

    def is_short(self, inputs: Inputs) -> bool:
        """Whether tokenising the pairs takes less time than handing them to another thread."""
        num_chars = self.pairs.num_chars(inputs.query or "", self.instruction_of(inputs))
        return len(inputs.query or "") + sum(len(text) + num_chars for text in inputs.texts) <= SHORT_CHARS

    def prepare(self, inputs: Inputs, abandoned: threading.Event) -> Prepared[Windows]:
        """Raises InputTooLong if the query leaves no room for a document, or too little to cut one into windows."""
        if inputs.query is None:
            raise OperatorError("a reranker compares texts with a query, and there is none")
        rule = inputs.long_input or self.rule
        pairs = self.tokenize(inputs, rule, abandoned)
        counts = [len(pair) for pair in pairs]
        cuts = [self.split_windows(pair, rule) for pair in pairs]
        flat = [window for cut in cuts for window in cut]
        work = Windows(flat, [len(cut) for cut in cuts], [len(window) for window in flat])
        return Prepared(inputs, counts, [count > self.network.max_tokens for count in counts], rule, work=work)

    def tokenize(self, inputs: Inputs, rule: LongInput, abandoned: threading.Event) -> list[Pair]:
        """The pairs, documents cut to `max_document_tokens`. Raises ClientError as `Preprocessor.tokenize` does."""
        question = self.pairs.question(inputs.query or "", self.instruction_of(inputs))
        self.refuse_long_query(inputs, question, self.network.max_tokens - 1)
        pairs: list[Pair] = []
        num_tokens = 0
        for part in self.pairs.pairs(question, inputs.texts, abandoned):
            bounded = [self.pairs.part(pair, slice(inputs.max_document_tokens)) for pair in part]
            counts = [len(pair) for pair in bounded]
            num_tokens += sum(counts)
            try:
                for index, count in enumerate(counts, start=len(pairs)):
                    self.check(inputs, index, count, rule)
                if num_tokens > self.limits.max_request_tokens:
                    is_all = len(pairs) + len(part) == len(inputs.texts)
                    raise RequestTooLong(str(num_tokens) if is_all else f"more than {num_tokens}", self.limits.max_request_tokens)
                if rule == "chunk" and any(count > self.network.max_tokens for count in counts):
                    # Of mostly the query each window of a long document would be, and their number would have no bound.
                    self.refuse_long_query(inputs, question, self.network.max_tokens // 2, "when documents are read in windows")
            except ClientError as error:
                raise error.after(num_tokens=num_tokens) from None
            pairs += bounded
        return pairs

    def refuse_long_query(self, inputs: Inputs, question: Question, most: int, when: str = "beside a document") -> None:
        """Raises InputTooLong if a pair without its document has more than `most` tokens."""
        if len(question.head) + len(self.pairs.suffix) > most:
            num_fixed = self.num_fixed_tokens(self.instruction_of(inputs))
            num_query = len(question.head) + len(self.pairs.suffix) - num_fixed
            most_of_query = max(0, most - num_fixed)
            why = f"It has {num_query} tokens, and the model reads {most_of_query} of it {when}. Please shorten it."
            raise InputTooLong("query", most_of_query, why=why)

    def check(self, inputs: Inputs, index: int, num_tokens: int, rule: LongInput) -> None:
        if num_tokens > self.network.max_tokens and rule == "error":
            raise InputTooLong(inputs.where(index), self.network.max_tokens)
        if num_tokens > self.limits.max_input_tokens:
            raise InputTooLong(inputs.where(index), self.limits.max_input_tokens)

    def split_windows(self, pair: Pair, rule: LongInput) -> list[Window]:
        if len(pair) <= self.network.max_tokens:
            return [pair.whole()]
        if rule == "end":
            return [self.pairs.cut(pair, self.network.max_tokens)]
        room = self.network.max_tokens - len(pair.head) - len(self.pairs.suffix)
        slices = windows(len(pair.content), max_tokens=room, rule=rule)
        return [self.pairs.part(pair, each).whole() for each in slices]
