"""The choices that requests, model rows, commands and replies share, each written once."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

LongInput = Literal["chunk", "end", "error"]  # for a text longer than the model reads: `gateway.embedding.long_input`
OutputDtype = Literal["float", "float16", "int8", "uint8", "binary", "ubinary"]  # of a vector: `gateway.embedding.quantization`
Task = Literal["query", "document"]  # the purpose of a text, as sentence-transformers calls it
RangesSetting: TypeAlias = str | list[float | list[float]]  # a file, a pair, or a pair for each dimension
PromptName = Annotated[str, Meta(min_length=1, max_length=64)]
InstructionFormat = Annotated[str, Meta(pattern=r"\{instruction\}")]
