"""A reranker's pairs: the query's tokens once a request, then each document's, joined to the windows that the network reads.

The reference is sentence-transformers' CrossEncoder. Most models join two texts by their tokenizer: `[CLS] query [SEP] document
[SEP]`. Models with a chat template, such as Qwen3-Reranker, read one text that has the query and the document in it; there tokens
may reach over the ends of either, so that each such text is tokenised whole.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from gateway.engine.encoder import NetworkInfo, Window
from gateway.engine.tokenizer import Tokenizer, slices

FILLERS = ("0", "1 2 3 4")  # sentence-transformers' own, which no tokenizer ends alike


@dataclass(frozen=True, slots=True)
class Pair:
    """The tokens of a query and a document: `head` before the document's own, special ones included, and `tail` after them."""

    head: list[int]
    content: list[int]
    tail: list[int]

    def __len__(self) -> int:
        return len(self.head) + len(self.content) + len(self.tail)

    def whole(self) -> Window:
        return Window([*self.head, *self.content, *self.tail], num_query_tokens=len(self.head))


@dataclass(frozen=True, slots=True)
class Question:
    """What all pairs of a request share: the text before a document, and its tokens, special ones included."""

    text: str
    head: list[int]


class PairTokenizer(Protocol):
    """Tokenises the pairs of one model. `suffix` are the tokens after a document that is cut."""

    suffix: list[int]

    def num_chars(self, query: str, instruction: str) -> int:
        """How many characters are tokenised for each document, besides its own."""

    def question(self, query: str, instruction: str = "") -> Question:
        """Tokenises the query, once for all documents. In a chat template, a document's first token may reach over its end."""

    def pairs(self, question: Question, documents: list[str], abandoned: threading.Event) -> Iterator[list[Pair]]:
        """The pairs of a question with each document, untruncated, slice by slice. Stops once `abandoned` is set.

        Releases the GIL.
        """

    def cut(self, pair: Pair, max_tokens: int) -> Window:
        """The window of a pair, cut as CrossEncoder does if it has more than `max_tokens`, special ones included."""

    def part(self, pair: Pair, chosen: slice) -> Pair:
        """The pair with some of the document's tokens."""


def pair_tokenizer(network: NetworkInfo, tokenizer: Tokenizer) -> PairTokenizer:
    return RenderedPairs(network.pair_format, tokenizer) if network.pair_format else JoinedPairs(tokenizer)


class JoinedPairs:
    """Pairs that the tokenizer joins: it encodes both texts apart, and puts special tokens around them.

    CrossEncoder puts a prompt before the query, so an instruction is here the text before it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        probe = tokenizer.fast.encode("a", "a")
        owners = probe.sequence_ids
        first = len(list(takewhile(lambda owner: owner is None, owners)))
        last = len(list(takewhile(lambda owner: owner is None, reversed(owners))))
        [*_, end] = [place for place, owner in enumerate(owners) if owner == 0]
        start = owners.index(1)
        self.prefix, self.middle = probe.ids[:first], probe.ids[end + 1 : start]
        self.suffix = probe.ids[len(probe.ids) - last :]

    def num_chars(self, query: str, instruction: str) -> int:  # noqa: ARG002 - PairTokenizer's signature
        return 0

    def question(self, query: str, instruction: str = "") -> Question:
        text = instruction + query
        return Question(text, [*self.prefix, *self.tokenizer.ids(text), *self.middle])

    def pairs(self, question: Question, documents: list[str], abandoned: threading.Event) -> Iterator[list[Pair]]:
        for part in self.tokenizer.content_ids(documents, abandoned):
            yield [Pair(question.head, content, self.suffix) for content in part]

    def cut(self, pair: Pair, max_tokens: int) -> Window:
        query = pair.head[len(self.prefix) : len(pair.head) - len(self.middle)]
        room = max_tokens - len(self.prefix) - len(self.middle) - len(self.suffix)
        num_query, num_document = longest_first(len(query), len(pair.content), room)
        return Pair([*self.prefix, *query[:num_query], *self.middle], pair.content[:num_document], self.suffix).whole()

    def part(self, pair: Pair, chosen: slice) -> Pair:
        return Pair(pair.head, pair.content[chosen], self.suffix)


class RenderedPairs:
    """Pairs that a chat template joins to one text. The document is the last of its parts that change."""

    def __init__(self, pair_format: tuple[str, ...], tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        *self.before, _, self.after = pair_format
        ends = (self._encode(self._start("", "") + filler + self.after) for filler in FILLERS)
        self.suffix = common_end(*ends) if self.after else []

    def num_chars(self, query: str, instruction: str) -> int:
        return len(self._start(query, instruction)) + len(self.after)

    def question(self, query: str, instruction: str = "") -> Question:
        text = self._start(query, instruction)
        return Question(text, self._encode(text))

    def pairs(self, question: Question, documents: list[str], abandoned: threading.Event) -> Iterator[list[Pair]]:
        for part in slices(documents, num_more=len(question.text) + len(self.after)):
            if abandoned.is_set():
                return
            texts = [question.text + document + self.after for document in part]
            encoded = self.tokenizer.fast.encode_batch_fast(texts, add_special_tokens=False)
            yield [self._split(encoding.ids, question.head) for encoding in encoded]

    def cut(self, pair: Pair, max_tokens: int) -> Window:
        if len(pair) <= max_tokens:
            return pair.whole()
        kept = [*pair.head, *pair.content, *pair.tail][: max_tokens - len(self.suffix)]
        return Window([*kept, *self.suffix], num_query_tokens=len(pair.head))

    def part(self, pair: Pair, chosen: slice) -> Pair:
        content = pair.content[chosen]
        return pair if len(content) == len(pair.content) else Pair(pair.head, content, self.suffix)

    def _start(self, query: str, instruction: str) -> str:
        """The text before a document."""
        texts = {"query": query, "instruction": instruction}
        return "".join(texts[part] if place % 2 else part for place, part in enumerate(self.before))

    def _split(self, ids: list[int], head: list[int]) -> Pair:
        tail = self.suffix and common_end(ids, self.suffix)
        num_head = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(ids, head, strict=False)))
        num_head = min(num_head, len(ids) - len(tail))
        own = head if num_head == len(head) else head[:num_head]
        return Pair(own, ids[num_head : len(ids) - len(tail)], tail)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.ids(text)


def longest_first(num_query: int, num_document: int, room: int) -> tuple[int, int]:
    """How many tokens the strategy "longest_first" of `tokenizers` keeps of two texts, so that they have `room` together.

    The shorter text stays whole while it has at most half of the room. Else each gets a half, and the longer one the odd token; of
    two equally long ones the document.
    """
    if num_query + num_document <= room:
        return num_query, num_document
    shorter = min(num_query, num_document)
    longer = max(shorter, room - shorter) if shorter <= room else shorter
    is_swapped = num_query > num_document
    if shorter + longer > room:
        shorter, longer = room // 2, room // 2 + room % 2
    return (longer, shorter) if is_swapped else (shorter, longer)


def common_end(*rows: Iterable[int]) -> list[int]:
    """The longest end that all rows share."""
    reverse = [list(row)[::-1] for row in rows]
    same = takewhile(lambda column: len(set(column)) == 1, zip(*reverse, strict=False))
    return [column[0] for column in same][::-1]
