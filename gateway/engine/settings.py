"""What a row of the backend `sentence-transformers` may hold."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.embedding.long_input import Rule


class LocalSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    source: Annotated[str, Meta(min_length=1, description="A folder with the model's files, or its id on the Hugging Face hub.")]
    download: Annotated[
        bool,
        Meta(
            description="Whether files that are nowhere on this machine are fetched from the hub. True for a row that does not say;"
            " the built-in model never asks."
        ),
    ] = True
    runtime: Annotated[
        Literal["auto", "openvino", "torch"],
        Meta(description='"auto" compiles the model with OpenVINO on a CPU, and runs it through torch on CUDA.'),
    ] = "auto"
    device: Annotated[
        str,
        Meta(
            pattern=r"^(auto|cpu|cuda|cuda:\d+(,cuda:\d+)*)$",
            description='"auto" is every CUDA device there is, or else the CPU; "cuda:1" is that one, "cuda:0,cuda:2" are these.'
            " Each has its own copy of the model, and one queue feeds them all.",
        ),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Meta(description='"auto" is bfloat16 on a CPU that has it, else float32; float16 on CUDA.'),
    ] = "auto"
    long_input: Annotated[
        Rule,
        Meta(
            description="Texts longer than the model reads: embedded in windows and averaged (chunk), cut after the first (end), or"
            " refused (error). A request may choose otherwise."
        ),
    ] = "chunk"
    prompts: Annotated[
        dict[Literal["query", "document"], str],
        Meta(description="Put before a text whose request says input_type query or document. They replace the model's own."),
    ] = {}
