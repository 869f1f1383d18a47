"""The choices that requests, model rows, commands and replies share, each written once."""

from typing import Annotated, Literal

from msgspec import Meta

LongInput = Literal["chunk", "end", "error"]  # for a text longer than the model reads: `gateway.embedding.long_input`
Task = Literal["query", "document"]  # the purpose of a text, as sentence-transformers calls it
PromptName = Annotated[str, Meta(min_length=1, max_length=64)]
InstructionFormat = Annotated[str, Meta(pattern=r"\{instruction\}")]
