"""A network on a torch device: what encoders of all kinds of models share.

It is imported only when a model is loaded: torch takes seconds and hundreds of megabytes.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from gateway.engine.attention_mask import traceable_masks
from gateway.engine.cuda_transfer import Transfer
from gateway.engine.encoder import CPU_LOGITS, EncoderInfo, NetworkInfo, OutOfMemory, Rows, Window, max_batch_tokens, pad
from gateway.engine.precision import half_precision
from gateway.engine.shape_buckets import FREE, Shapes
from gateway.engine.tiled_experts import tiled_experts

CPU_BATCH_TOKENS = 2048  # measured: 512 to 2,048 are both the fastest and the fairest on a CPU, 16,384 loses a third
CUDA_BATCH_TOKENS = 32_768
CUDA_LOGITS = 128 * 1024 * 1024  # of a sparse encoder: 512 MB in float32, some 4,400 tokens over BERT's vocabulary
CUDA_LENGTH_STEP = 8  # attention kernels need masks aligned to it, and copy others
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# In the text of a RuntimeError: the CPU's allocator and cuBLAS have no error class for it.
NO_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")

Result = TypeVar("Result")


class TorchNetwork:
    """An Encoder on one torch device. A subclass loads the model, and sets `info` and `pipeline`: padded inputs to rows."""

    info: EncoderInfo
    pipeline: Any

    def __init__(self, folder: Path, *, device: str, precision: str, threads: int) -> None:
        self.device = torch.device(device)
        self.is_cuda = self.device.type == "cuda"
        self.transfer = Transfer(self.device)
        if precision == "auto":
            precision = half_precision(folder) if self.is_cuda else "float32"
        self.precision = precision
        if not self.is_cuda and threads:
            torch.set_num_threads(threads)

    def info_of(self, network: NetworkInfo, tokenizer_json: str) -> EncoderInfo:
        return EncoderInfo(
            network=network,
            tokenizer_json=tokenizer_json,
            runtime="torch",
            device=str(self.device),
            precision=self.precision,
            default_max_batch_tokens=self.max_batch_tokens(network),
            shapes=Shapes(length_step=CUDA_LENGTH_STEP) if self.is_cuda else FREE,
            is_async=self.is_cuda,
        )

    def max_batch_tokens(self, network: NetworkInfo) -> int:
        if self.is_cuda:
            return max_batch_tokens(network, CUDA_BATCH_TOKENS, max_logits=CUDA_LOGITS)
        return max_batch_tokens(network, CPU_BATCH_TOKENS, max_logits=CPU_LOGITS)

    @property
    def num_bytes(self) -> int:
        """The memory of its weights, on its device."""
        parts = (*self.pipeline.parameters(), *self.pipeline.buffers())
        return sum(part.numel() * part.element_size() for part in {part.data_ptr(): part for part in parts}.values())

    def trace(self, openvino: Any) -> Any:
        """Traces the whole pipeline into an OpenVINO model. It takes the arrays of `pad`, with any number of rows and columns."""
        pad_id = self.info.network.pad_id
        windows = [Window([pad_id] * 16, 3, num_query_tokens=7), Window([pad_id] * 9, num_query_tokens=4)]
        with torch.inference_mode(), traceable_masks(), tiled_experts(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of shapes that it makes dynamic all the same
            return openvino.convert_model(self.traceable(), example_input=self.tensors(windows))

    def traceable(self) -> torch.nn.Module:
        """What is traced: a module that takes the arrays of `pad` as tensors, and returns the rows."""
        pipeline: torch.nn.Module = self.pipeline
        return pipeline

    def embed(self, windows: list[Window]) -> NDArray[np.float32]:
        return self.launch(windows)()

    def launch(self, windows: list[Window]) -> Rows:
        """As AsyncEncoder: on CUDA all of it but the waiting is done by the device. On a CPU the rows are there already."""
        wait = self.or_out_of_memory(lambda: self.transfer.to_host(self.vectors(windows).float()))
        return lambda: self.or_out_of_memory(wait)

    def or_out_of_memory(self, act: Callable[[], Result]) -> Result:
        try:
            with torch.inference_mode():
                return act()
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        if self.is_cuda:  # after the except block, as the error no longer keeps the attempt's tensors alive
            torch.cuda.empty_cache()
        raise OutOfMemory

    def vectors(self, windows: list[Window]) -> torch.Tensor:
        vectors: torch.Tensor = self.pipeline(*self.tensors(windows))
        return vectors

    def tensors(self, windows: Sequence[Window], length: int = 0) -> tuple[torch.Tensor, ...]:
        """The inputs on the device, padded to `length` columns or to as few as the shapes allow."""
        length = length or self.info.shapes.length(max(map(len, windows)))
        arrays = pad(list(windows), length=length, network=self.info.network)
        return tuple(map(self.transfer.to_device, arrays))


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in NO_MEMORY)
