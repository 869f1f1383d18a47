"""Small sparse encoders (SPLADE) of several architectures with random weights. Imports no pytest.

A random network gives most terms a weight, so that a wrong choice of terms would pass. Here the head's bias is lowered until a text
has weights for some of the vocabulary, as a trained one's.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gateway.engine.fidelity import PROBES
from gateway.testing.architectures import COMMON, DISTIL, MAX_TOKENS, MODERN, scale_weights, trained

SHARE = 0.05  # of the vocabulary that a probe text gives a weight, on average
# For each kind: the name of its classes in transformers, and the settings.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", COMMON),
    "distilbert": ("DistilBert", DISTIL),
    "roberta": ("Roberta", COMMON | {"type_vocab_size": 1}),
    "modernbert": ("ModernBert", COMMON | MODERN),
}


def sparse_encoder_of(
    kind: str, folder: Path, *, pooling: str = "max", activation: str = "relu", scale: float = 4, share: float = SHARE, **whole: Any
) -> Path:
    """Saves a sparse encoder of one of KINDS; returns its folder. Weights are scaled up, so that layers matter."""
    name, settings = KINDS[kind]
    fast = trained("wordpiece")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast, model_max_length=MAX_TOKENS, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    config = getattr(transformers, f"{name}Config")(vocab_size=len(tokenizer), **settings)
    torch.manual_seed(5)
    network = getattr(transformers, f"{name}ForMaskedLM")(config)
    scale_weights(network, scale)
    return save(network, tokenizer, folder, SpladePooling(pooling, activation), share=share, **whole)


def save(
    network: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, pooling: SpladePooling, *, share: float = SHARE, **whole: Any
) -> Path:
    """Saves a network with a masked-LM head as SparseEncoder does, with `share` of its logits above 0."""
    raw = folder / "raw"
    network.eval().save_pretrained(raw)
    tokenizer.save_pretrained(raw)
    transformer = Transformer(str(raw), transformer_task="fill-mask")
    model = SparseEncoder(modules=[transformer, pooling], device="cpu", **whole)
    with torch.no_grad():
        logits = [transformer(transformer.preprocess([text]))["token_embeddings"][0].amax(dim=0) for text in PROBES[:8]]
        head: Any = transformer.model.get_output_embeddings()
        head.bias -= torch.quantile(torch.stack(logits).mean(dim=0), 1 - share)
    model.save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"
