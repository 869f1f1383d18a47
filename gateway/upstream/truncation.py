"""Finds out whether a server silently truncates long texts, by comparing vectors: at each length when it is first needed.

Sends a text, and three variants of the same length that differ from it only in the last, the first, or the middle third. If a
variant has the text's vector, the server does not read that third. Otherwise `proven` words are surely read: each word is a token
or more, so as many tokens are. A server that refuses such a text instead does what it should.

Bisection narrows down a cut. From then on a text that may be longer is sent once more with words inserted where nothing is read: if
they change nothing, the text is too long.

A reranker's score hardly changes with words that do not matter: its variants repeat the query, and any change counts. A query is
read whole if words behind it change the score.

Costs, at each doubling of the longest text: four texts of 1.5 times that length. Pure but for `ask`.
"""

import string
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.embedding.vectors import Float32
from gateway.upstream.probe import QUERY, distances

Part = Literal["end", "start", "middle"]  # that is cut off


class Ask(Protocol):
    """Returns unit vectors, or points of a reranker's scores for `query`; None if the server refuses texts this long."""

    async def __call__(self, texts: list[str], query: str = QUERY) -> Float32 | None: ...


FIRST_WORDS = 128
LONGER = 1.5  # times the length to prove, so that the texts differ in a third
CLOSE = 1.1  # bisection ends within a tenth
MIN_TAIL_WORDS = 16
MAX_TOKENS_PER_WORD = 4  # of the probes' own words, in any vocabulary
# Short and common: one token each in most vocabularies, and never less.
WORDS = ("river", "stone", "paper", "house", "green", "water", "light", "music", "horse", "bread", "night", "world")
OTHER_WORDS = ("doctor", "market", "engine", "silver", "winter", "letter", "garden", "number", "police", "school", "colour")


def most_tokens(text: str) -> int:
    """An upper bound for any usual tokenizer: a token for two bytes, and one for each ASCII digit or punctuation mark."""
    content = text.encode("utf-8", "surrogatepass")
    num_marks = len(content) - len(content.translate(None, MARKS))
    return 2 + (len(content) + num_marks + 1) // 2


MARKS = (string.digits + string.punctuation).encode()


def run(words: tuple[str, ...], start: int, stop: int) -> list[str]:
    return [words[index % len(words)] for index in range(start, stop)]


@dataclass(slots=True)
class Truncation:
    """What one endpoint reads. `proven` tokens are read; `cut` is the part that a text of `cut_at` words was seen to lose.

    Of a reranker these are the tokens of a query and a document together.
    """

    ask: Ask
    tolerance: float
    is_reranker: bool = False
    proven: int = 0
    cut: Part | None = None
    cut_at: int = 0
    refused_at: int | None = None  # words at which the server refuses a text, as it should

    def next_words(self, num_tokens: int) -> int | None:
        """The length in words to test next. Returns None once texts of `num_tokens` are known to be read whole, refused or cut."""
        if self.cut is not None:
            words = (self.proven + self.cut_at) // 2
            return words if self.cut_at > CLOSE * self.proven + 1 and words > self.proven else None
        if self.proven >= num_tokens:
            return None
        words = max(FIRST_WORDS, 2 * self.proven)
        if self.refused_at is None or words < self.refused_at:
            return words
        words = (self.proven + self.refused_at) // 2
        return words if self.refused_at > CLOSE * self.proven + 1 and words > self.proven else None

    async def cover(self, num_tokens: int) -> None:
        """Proves that texts of `num_tokens` are read whole, or refused; or finds the cut and narrows it down."""
        while (words := self.next_words(num_tokens)) is not None:
            await self.look(words)

    async def look(self, words: int) -> None:
        """Tests one length."""
        rows = await self.ask(texts_of(words, tuple(QUERY.split()) if self.is_reranker else OTHER_WORDS))
        if rows is None:
            self.refused_at = words
            return
        for part, other in zip(PARTS, rows[1:], strict=True):
            if float(distances(rows[:1], other[None])[0]) <= self.tolerance:
                self.cut, self.cut_at = part, words
                return
        self.proven = words

    async def is_whole(self, text: str, query: str | None = None) -> bool:
        """Whether a text that may be longer than `proven` is read whole. Called only if a cut is known."""
        if len(text.split()) > MAX_TOKENS_PER_WORD * self.cut_at:
            return False
        if query is None:
            rows = await self.ask([text, self.longer(text, OTHER_WORDS)])
        else:
            rows = await self.ask([text, self.longer(text, OTHER_WORDS), self.longer(text, tuple(query.split()) or WORDS)], query)
        return rows is not None and any(float(distances(rows[:1], other[None])[0]) > self.tolerance for other in rows[1:])

    async def is_query_whole(self, query: str, text: str) -> bool:
        """Whether a reranker's query is read whole with a text of this length. Called only if a cut is known."""
        if len(query.split()) > MAX_TOKENS_PER_WORD * self.cut_at:
            return False
        first = await self.ask([text], query)
        for more in (WORDS, tuple(text.split()) or WORDS):
            other = await self.ask([text], self.longer(query, more))
            if first is None or other is None or float(distances(first, other)[0]) > self.tolerance:
                return True
        return False

    def longer(self, text: str, more: tuple[str, ...]) -> str:
        """The text with further words in the part that is cut off."""
        added = " ".join(run(more, 0, max(MIN_TAIL_WORDS, len(text.split()) // 3)))
        gap = " " if " " in text else ""
        words = text.split(" ") if gap else list(text)
        half = len(words) // 2 + 1
        if self.cut == "middle":
            return f"{gap.join(words[:half])} {added} {gap.join(words[half:])}"
        return f"{added} {text}" if self.cut == "start" else f"{text} {added}"


PARTS: tuple[Part, ...] = ("end", "start", "middle")


def texts_of(words: int, other_words: tuple[str, ...] = OTHER_WORDS) -> list[str]:
    """A text, and for each of PARTS a variant of `other_words` there. The part is the third beyond `words` words."""
    total = max(3, round(LONGER * words))
    part = max(1, total - words)
    own = run(WORDS, 0, total)
    before = (total - part) // 2
    changed = [
        own[: total - part] + run(other_words, 0, part),
        run(other_words, 0, part) + own[part:],
        own[:before] + run(other_words, 0, part) + own[before + part :],
    ]
    return [" ".join(words) for words in (own, *changed)]
