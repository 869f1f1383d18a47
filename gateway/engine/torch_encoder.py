"""sentence-transformers on torch: every module of the model as it was built, fed with our own batches of token ids.

Imported when a model is loaded and not before: torch takes seconds and hundreds of megabytes.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer

from gateway.engine.encoder import EncoderInfo, padded
from gateway.errors import OperatorError

CPU_BATCH_TOKENS = 2048  # measured: 512 to 2,048 are both the fastest and the fairest on a CPU, 16,384 loses a third
CUDA_BATCH_TOKENS = 32_768
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchEncoder:
    """Raises OperatorError for a folder without a readable model, a device that is not there, or a module we cannot feed."""

    def __init__(self, folder: Path, *, device: str, precision: str, threads: int) -> None:
        self.device = chosen_device(device)
        precision = precision if precision != "auto" else ("float16" if self.device.type == "cuda" else "float32")
        if self.device.type == "cpu" and threads:
            torch.set_num_threads(threads)
        model = read(folder, self.device)
        if not getattr(model[1] if len(model) > 1 else None, "include_prompt", True) and any(model.prompts.values()):
            raise OperatorError(f"the model in {folder} leaves its prompt out of pooling, which is not supported yet")
        self.model = model.to(DTYPES[precision]).eval()
        self.pad_id = int(model.tokenizer.pad_token_id or 0)
        self.info = EncoderInfo(
            dimensions=int(model.get_embedding_dimension() or 0),
            max_tokens=int(model.max_seq_length or model.tokenizer.model_max_length),
            tokenizer_json=model.tokenizer.backend_tokenizer.to_str(),
            prompts={name: text for name, text in model.prompts.items() if text},
            default_prompt=model.prompts.get(model.default_prompt_name or "") or "",
            is_normalized=type(model[len(model) - 1]).__name__ == "Normalize",
            runtime="torch",
            device=str(self.device),
            precision=precision,
            default_max_batch_tokens=CUDA_BATCH_TOKENS if self.device.type == "cuda" else CPU_BATCH_TOKENS,
        )

    def traced(self, openvino: Any) -> Any:
        """The whole pipeline as an OpenVINO model of (input_ids, attention_mask), of any number of rows and columns."""
        input_ids = torch.full((2, 16), self.pad_id)
        attention_mask = torch.ones_like(input_ids)
        attention_mask[1, 9:] = 0
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's, of shapes that it makes dynamic all the same
            return openvino.convert_model(Pipeline(self.model), example_input=(input_ids, attention_mask))

    def embed(self, token_ids: list[list[int]]) -> NDArray[np.float32]:
        longest = max(map(len, token_ids))
        input_ids, attention_mask = padded(token_ids, length=longest, pad_id=self.pad_id)
        with torch.inference_mode():
            features = {
                "input_ids": torch.from_numpy(input_ids).to(self.device),
                "attention_mask": torch.from_numpy(attention_mask).to(self.device),
            }
            vectors: NDArray[np.float32] = self.model(features)["sentence_embedding"].float().cpu().numpy()
        return vectors


class Pipeline(torch.nn.Module):
    """All of a model's modules as one function of two tensors."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.model({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]
        return vectors


def chosen_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OperatorError(f"the device '{name}' is none that torch knows: use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OperatorError(f"the device '{name}' is not on this machine: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def read(folder: Path, device: torch.device) -> SentenceTransformer:
    try:
        return SentenceTransformer(str(folder), device=str(device), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OperatorError(f"the model in {folder} cannot be loaded: {reason}") from error
