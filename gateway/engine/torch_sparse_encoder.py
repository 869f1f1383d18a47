"""The Encoder of a sparse encoder (SPLADE) through torch: SparseEncoder's network, its token logits pooled to weights of terms.

Formal, Lassance, Piwowarski, Clinchant: "SPLADE v2" (2021). Rows have a weight for each term of the vocabulary.
"""

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import SpladePooling

from gateway.embedding.sparse import MAX_TERMS
from gateway.engine.checkpoint import (
    HEADS,
    POOLER,
    loading_reports,
    refuse_incomplete,
    refuse_not_finite,
    refuse_other_input,
    refuse_other_vectors,
    unsupported_error,
)
from gateway.engine.encoder import NetworkInfo
from gateway.engine.torch_network import DTYPES, TorchNetwork
from gateway.errors import OperatorError


class TorchSparseEncoder(TorchNetwork):
    """A sparse encoder on one torch device. Its rows have shape (n, terms).

    Raises OperatorError if it cannot be loaded, or gives other weights than `SparseEncoder.encode`.
    """

    def __init__(self, folder: Path, *, device: str, precision: str, threads: int, trusts_code: bool = False) -> None:
        super().__init__(folder, device=device, precision=precision, threads=threads)
        model = _read(folder, self.device, DTYPES[self.precision], trusts_code=trusts_code).eval()
        self.pipeline = _SparsePipeline(model)
        self.info = self.info_of(_network_of(model), model.tokenizer.backend_tokenizer.to_str())
        if self.info.network.dimensions > MAX_TERMS:
            raise unsupported_error(folder, f"it has {self.info.network.dimensions} terms, more than {MAX_TERMS}")
        if self.precision == "float32":  # the reference for all others, and always loaded first
            refuse_other_vectors(folder, model, self.embed)


class _SparsePipeline(torch.nn.Module):
    """A network and its pooling as one function of tensors: padded token ids to weights, shape (n, terms)."""

    def __init__(self, model: SparseEncoder) -> None:
        super().__init__()
        self.transformer: Any = model[0]
        pooling: Any = model[1]
        self.pooling = _MaxPooling(pooling.activation_function) if pooling.pooling_strategy == "max" else pooling

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        features = self.transformer({"input_ids": input_ids, "attention_mask": attention_mask})
        weights: torch.Tensor = self.pooling(features)["sentence_embedding"]
        return weights


class _MaxPooling(torch.nn.Module):
    """SpladePooling by maximum, which is taken first: relu and log1p never change which of two numbers is larger.

    They are then computed for one row a text instead of one a token. On two cores the whole network takes a sixth less time.
    """

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.num_logarithms = 2 if activation == "log1p_relu" else 1

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        logits, mask = features["token_embeddings"], features["attention_mask"]
        weights = (logits * mask.unsqueeze(-1).to(logits.dtype)).amax(dim=1).relu()
        for _ in range(self.num_logarithms):
            weights = weights.log1p()
        return {"sentence_embedding": weights}


def _read(folder: Path, device: torch.device, dtype: torch.dtype, *, trusts_code: bool) -> SparseEncoder:
    """Loads the whole model in `folder`, as `checkpoint.read` does an embedder; here the masked-LM head may not be missing."""
    try:
        with loading_reports() as reports:
            model = SparseEncoder(
                str(folder),
                device=str(device),
                local_files_only=True,
                trust_remote_code=trusts_code,
                model_kwargs={"dtype": dtype},
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise OperatorError(f"the model in {folder} cannot be loaded: {reason}") from error
    for report in reports:
        refuse_incomplete(folder, report, may_lack=[], may_have=[*HEADS, rf"(\w+\.)?{POOLER}"])
    refuse_not_finite(folder, model)
    if len(model) != 2 or not isinstance(model[1], SpladePooling):  # noqa: PLR2004 - the network and its pooling
        names = ", ".join(type(module).__name__ for module in model)
        raise unsupported_error(folder, f"its modules are {names}, where a network with a masked-LM head and SpladePooling belong")
    refuse_other_input(folder, model)
    if dtype == torch.float32:
        model.float()  # also casts modules that ignore `dtype`
    return model


def _network_of(model: SparseEncoder) -> NetworkInfo:
    transformer: Any = model[0]
    pooling: Any = model[1]
    head = transformer.model.get_output_embeddings()
    return NetworkInfo(
        kind="sparse_encoder",
        dimensions=int(head.weight.shape[0]),
        max_tokens=int(model.max_seq_length or model.tokenizer.model_max_length),
        pad_id=int(model.tokenizer.pad_token_id or 0),
        prompts={name: text for name, text in model.prompts.items() if text},
        default_prompt=model.prompts.get(model.default_prompt_name or "") or "",
        is_normalized=False,
        term_join=pooling.pooling_strategy,
    )
