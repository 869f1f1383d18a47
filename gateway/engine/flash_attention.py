"""Batches without padding: texts laid end to end, each attending to itself alone.

sentence-transformers offers it with FlashAttention, which is a package of its own (flash_attn, or flash_attn_interface for its
version 3), for CUDA and half precision. Its pooling then leaves the same number of tokens out of every text, so models that leave
prompts out stay with padding, as does everything else: scaled-dot-product attention under a mask.
"""

from typing import Any

from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

from gateway.engine.encoder import EncoderInfo, Window


def installed_flash_attention() -> str | None:
    """What transformers calls the one it can use on this machine. Kernels from the hub are not asked for: they are downloaded."""
    if is_flash_attn_3_available():
        return "flash_attention_3"
    return "flash_attention_2" if is_flash_attn_2_available() else None


def is_possible(info: EncoderInfo) -> bool:
    return info.device.startswith("cuda") and info.precision != "float32" and not info.network.leaves_prompt_out


def end_to_end(transformer: Any, windows: list[Window]) -> dict[str, Any]:
    """What a sentence-transformers Transformer whose `can_flatten_inputs` is true makes of texts, made of token ids."""
    features: dict[str, Any] = transformer.data_collator([{"input_ids": window.token_ids} for window in windows])
    features["position_ids"] += transformer._flatten_position_offset  # noqa: SLF001 - XLM-R and MPNet count from padding_idx + 1
    del features["labels"]
    return features
