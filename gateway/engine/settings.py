"""The settings of a row of the backend `sentence-transformers`."""

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.config import InstructionFormat, LongInput, PromptName, Secret
from gateway.embedding.embedder import ModelKind
from gateway.engine.int8 import refuse_int8_of
from gateway.errors import ConfigurationError

BACKEND = "sentence-transformers"  # its name
COMMIT = re.compile(r"[0-9a-f]{40}")


class LocalSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    source: Annotated[str, Meta(min_length=1, description="A folder with the model's files, or its id on the Hugging Face hub.")]
    download: Annotated[
        bool,
        Meta(
            description="Whether files that are nowhere on this machine are fetched from the hub. True for a row that does not say;"
            " the built-in model never asks."
        ),
    ] = True
    revision: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,254}$")] | None,
        Meta(
            description="The commit, branch or tag of its files on the hub; by default the newest of the branch main. With"
            " trust_remote_code a whole commit, of 40 hexadecimal digits; of a folder, the digest of its code.",
        ),
    ] = None
    hub_token: Annotated[
        Secret | None,
        Meta(
            description="A token of the hub, for gated and private models, from a variable or a file. By default huggingface_hub's"
            " own: HF_TOKEN, or that of its login."
        ),
    ] = None
    trust_remote_code: Annotated[
        bool,
        Meta(
            description="Whether Python code that comes with the model is run, which needs revision too. It runs only while the"
            " model is compiled, in a process of its own without keys; so the model is served on the CPU, compiled, or not at all."
        ),
    ] = False
    runtime: Annotated[
        Literal["auto", "openvino", "torch"],
        Meta(
            description='"auto" compiles the model with OpenVINO on a CPU, and runs it through torch on CUDA. A static model'
            " (StaticEmbedding, model2vec) is served by numpy, and takes no other value."
        ),
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
        Literal["auto", "float32", "bfloat16", "float16", "int8", "int8-fast"],
        Meta(
            description='"auto" is bfloat16 on a CPU that has it, else float32; on CUDA float16, or bfloat16 for models that are'
            " made for it. A precision whose vectors are measured and too far from float32's is given up for the next; the log,"
            ' `gateway models` and /v1/models say so. "int8" and "int8-fast" are for embedders on a CPU, never chosen by "auto":'
            " faster, with a loss that docs/precision.md states; a model that loses more is refused."
        ),
    ] = "auto"
    long_input: Annotated[
        LongInput,
        Meta(
            description="Texts longer than the model reads: embedded in windows and averaged (chunk), cut after the first (end), or"
            " refused (error). A reranker compares each window with the query, and the best counts. A request may choose otherwise."
        ),
    ] = "chunk"
    prompts: Annotated[
        dict[PromptName, str],
        Meta(
            description="Put before a text whose request names one in input_type: query, document, or any other name. They replace"
            " the model's own of the same name."
        ),
    ] = {}
    instruction_format: Annotated[
        InstructionFormat | None,
        Meta(
            description="What is put before a query whose request has an instruction, with {instruction} where it stands. By"
            " default as the model's own query prompt shows it, if that begins with \"Instruct: \" as Qwen3's does.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.trust_remote_code and not (self.revision and COMMIT.fullmatch(self.revision)):
            raise ValueError(
                "trust_remote_code needs revision, pinned to the code that you have read: a commit of 40 hexadecimal digits, or of"
                " a folder the digest that gateway models check says"
            )


def refuse_settings_of_embedders(settings: LocalSettings, kind: ModelKind) -> None:
    """Raises ConfigurationError, naming the setting, if the row of a reranker has one that its pairs have no place for.

    Likewise for 8 bits, which only embedders have.
    """
    refuse_int8_of(kind, settings.precision)
    values = {"prompts": settings.prompts, "instruction_format": settings.instruction_format}
    names = [name for name, value in values.items() if value]
    if kind == "reranker" and names:
        raise ConfigurationError(
            f"{names[0]}: it is for embedders, and this model is a reranker, whose own files say how it reads a query: remove it"
        )
