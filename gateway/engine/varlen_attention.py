"""torch's own variable-length attention (`torch.nn.attention.varlen`, since 2.10) in the place of the package flash_attn.

It is the same kernel, which torch brings along for CUDA devices of compute capability 8.0 and later, in half precision.
Transformers does not know it, so it is given to transformers as the functions of a FlashAttention of another name.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface
from transformers import modeling_flash_attention_utils as flash
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

NAME = "flash_attention_of_torch"
MIN_CAPABILITY = (8, 0)
MODULE = "torch.nn.attention.varlen"

VarlenAttention = Callable[..., torch.Tensor]


def varlen_attention() -> VarlenAttention | None:
    """torch's function; None for a torch without it."""
    try:
        found: VarlenAttention = importlib.import_module(MODULE).varlen_attn
    except (ImportError, AttributeError):
        return None
    return found


def is_available(device: torch.device) -> bool:
    """Whether this torch and this device have it."""
    is_able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= MIN_CAPABILITY
    return is_able and varlen_attention() is not None


def register(attention: VarlenAttention) -> str:
    """Makes it an attention of transformers. Returns the name to ask for it by.

    Raises AttributeError where transformers keeps its functions elsewhere.
    """
    dense, varlen = functions_of(attention)
    process = flash._lazy_define_process_function(varlen)  # type: ignore[no-untyped-call]  # noqa: SLF001 - it has no public door
    AttentionInterface.register(NAME, flash_attention_forward)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    loaded: Any = flash
    loaded._loaded_implementation = NAME  # noqa: SLF001
    loaded._flash_fn, loaded._flash_varlen_fn = dense, varlen  # noqa: SLF001
    loaded._pad_fn, loaded._unpad_fn = flash._pad_input, flash._unpad_input  # noqa: SLF001
    loaded._process_flash_kwargs_fn = process  # noqa: SLF001
    return NAME


def functions_of(attention: VarlenAttention) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]:
    """`flash_attn_func` and `flash_attn_varlen_func` with the arguments that transformers gives them."""

    def flash_attn_varlen_func(  # noqa: PLR0913, PLR0917 - FlashAttention's own signature
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
    ) -> torch.Tensor:
        """Shapes (tokens, heads, width); each sequence, of those laid end to end, attends to itself alone."""
        options: dict[str, Any] = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
        window = (window_size[0], 0) if causal else tuple(window_size)
        ends = (cu_seqlens_q.to(torch.int32), cu_seqlens_k.to(torch.int32))
        return attention(q, k, v, *ends, int(max_seqlen_q), int(max_seqlen_k), scale=softmax_scale, window_size=window, **options)

    def flash_attn_func(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> torch.Tensor:
        """Shapes (rows, tokens, heads, width): rows of one length, laid end to end."""
        rows, length = q.shape[:2]
        ends = torch.arange(0, (rows + 1) * length, length, dtype=torch.int32, device=q.device)
        flat_q, flat_k, flat_v = (each.reshape(-1, *each.shape[2:]) for each in (q, k, v))
        return flash_attn_varlen_func(flat_q, flat_k, flat_v, ends, ends, length, length, **options).reshape(q.shape)

    return flash_attn_func, flash_attn_varlen_func
