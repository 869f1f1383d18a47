"""The Encoder of a reranker through torch: CrossEncoder's own modules, fed with the gateway's batches of pairs. Rows are logits."""

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.modules import LogitScore

from gateway.engine.fidelity import probe_windows
from gateway.engine.pair_checkpoint import network_of, predicted, read_reranker, refuse_other_scores
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.torch_network import DTYPES, TorchNetwork


class TorchReranker(TorchNetwork):
    """A reranker on one torch device. Its rows have shape (n, 1): the score before any activation function.

    Raises OperatorError if it cannot be loaded, or gives other scores than `CrossEncoder.predict`.
    """

    def __init__(self, folder: Path, *, device: str, precision: str, threads: int, trusts_code: bool = False) -> None:
        super().__init__(folder, device=device, precision=precision, threads=threads)
        model = read_reranker(folder, self.device, DTYPES[self.precision], trusts_code=trusts_code).eval()
        network = network_of(folder, model)
        self.info = self.info_of(network, model.tokenizer.backend_tokenizer.to_str())
        is_reference = self.precision == "float32"  # for all others, and always loaded first
        expected = predicted(folder, model) if is_reference else None  # before the pipeline changes the model's head
        self.pipeline = _ScorePipeline(model)
        if expected is not None:
            windows = probe_windows(network, Tokenizer(self.info.tokenizer_json))
            refuse_other_scores(folder, expected, self.embed, windows)


class _ScorePipeline(torch.nn.Module):
    """All of a reranker's modules as one function of tensors: padded pairs to scores, shape (n, 1)."""

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model
        self.last_token: _LastTokenHead | None = None
        score = next((module for module in model if isinstance(module, LogitScore)), None)
        if score is not None:
            ids = [score.true_token_id, *([] if score.false_token_id is None else [score.false_token_id])]
            network: Any = model[0].model
            self.last_token = _LastTokenHead(network.get_output_embeddings(), ids)
            network.set_output_embeddings(self.last_token)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            features["token_type_ids"] = token_type_ids
        if self.last_token is not None:
            self.last_token.places = attention_mask.sum(dim=1) - 1
        for module in self.model:
            if isinstance(module, LogitScore):
                logits = features[module.module_input_name][:, -1]  # of the two tokens, or of one
                features["scores"] = logits[:, :1] - logits[:, 1:] if logits.shape[1] > 1 else logits
            else:
                features = module(features)
        scores: torch.Tensor = features["scores"]
        return scores if scores.ndim > 1 else scores[:, None]


class _LastTokenHead(torch.nn.Module):
    """The head of a causal language model for the last real token of each row, and for a few words of the vocabulary.

    The whole head would give each token of a batch 150,000 logits. CrossEncoder pads on the left, where the last token is at the
    end; here padding is on the right, so the pipeline sets `places`, shape (n,).
    """

    def __init__(self, head: Any, ids: list[int]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(head.weight[ids].detach().clone(), requires_grad=False)
        bias = getattr(head, "bias", None)
        self.bias = None if bias is None else torch.nn.Parameter(bias[ids].detach().clone(), requires_grad=False)
        self.places = torch.zeros(0, dtype=torch.int64)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states of shape (n, length, width) to logits of shape (n, 1, len(ids))."""
        last = hidden[torch.arange(hidden.shape[0], device=hidden.device), self.places]
        return torch.nn.functional.linear(last, self.weight, self.bias)[:, None]
