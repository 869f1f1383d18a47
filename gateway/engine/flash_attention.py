"""Unpadded batches through FlashAttention: texts are concatenated, and each attends to itself alone.

sentence-transformers offers this on CUDA in half precision. The attention is torch's own (`varlen_attention`), or, where this torch
has none, that of the package flash_attn (or flash_attn_interface, version 3). Pooling then leaves the same number of tokens out of
every text. So models that leave prompts out keep padding, as do all other cases: scaled-dot-product attention under a mask.
"""

from typing import Any

import torch
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

from gateway.engine import varlen_attention
from gateway.engine.encoder import EncoderInfo, Window
from gateway.log import get_logger

log = get_logger()


def installed_flash_attention() -> str | None:
    """Transformers' name of the FlashAttention it can use here, or None. Kernels from the hub are excluded: they are downloaded."""
    if is_flash_attn_3_available():
        return "flash_attention_3"
    return "flash_attention_2" if is_flash_attn_2_available() else None


def implementation_for(device: torch.device) -> str | None:
    """Transformers' name of the attention for batches without padding on this device, or None."""
    attention = varlen_attention.varlen_attention()
    if attention is not None and varlen_attention.is_available(device):
        try:
            return varlen_attention.register(attention)
        except AttributeError as error:  # transformers keeps its functions elsewhere
            log.warning("torch_varlen_attention_off", reason=str(error))
    return installed_flash_attention()


def is_possible(info: EncoderInfo) -> bool:
    return info.device.startswith("cuda") and info.precision != "float32" and not info.network.leaves_prompt_out


def end_to_end(transformer: Any, windows: list[Window]) -> dict[str, Any]:
    """The features that a Transformer of sentence-transformers with `can_flatten_inputs` makes of texts, here made of token ids."""
    features: dict[str, Any] = transformer.data_collator([{"input_ids": window.token_ids} for window in windows])
    features["position_ids"] += transformer._flatten_position_offset  # noqa: SLF001 - XLM-R and MPNet count from padding_idx + 1
    del features["labels"]
    return features
