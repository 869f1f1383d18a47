"""What a model's own tokenizer makes of a text, and of ids, for clients that cut texts themselves."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from gateway.embedding.embedder import Inputs


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The tokens of one text, `text`, which begins with its prompt if it has one. All lists have one entry a token.

    `offsets` are the start and stop of each token in `text`, in characters. `is_special` marks the tokens that stand around a text,
    as [CLS] does; `pieces` are the tokens as the vocabulary writes them.
    """

    text: str
    ids: list[int]
    pieces: list[str] = field(default_factory=list)
    offsets: list[tuple[int, int]] = field(default_factory=list)
    is_special: list[bool] = field(default_factory=list)


@runtime_checkable
class TextTokenizer(Protocol):
    """An embedder whose tokenizer is on this machine."""

    async def tokenize(self, inputs: Inputs, *, add_special_tokens: bool) -> list[TokenizedText]:
        """The tokens of each text, in full, however long it is. Raises InputTooLong and RequestTooLong, by the limits."""

    async def decode(self, inputs: Inputs, *, skip_special_tokens: bool) -> list[str]:
        """The texts of `inputs.token_ids`. Raises InvalidValue for an id that is no token of the model."""
