"""Attention masks for tracing: transformers' own, changed so that padding rows stay finite too, and as small as they can be.

Finite: with sliding-window attention, a padding row may attend to nothing but padding. Torch gives such a row zeros. OpenVINO gives
it the softmax of nothing: NaN, which the next layer spreads to every token. So a row of padding attends to everything; it is never
read.

Small: at 8,192 tokens one mask of every query and key takes 67 MB in each stream, and each step of its computation as much again.
* Where every token attends to every other, a mask of the keys alone says which are padding.
* Where a token attends to those before it, no token attends to the padding, which `pad` always puts on the right. One mask does for
  all rows of a batch.
* The distance of two tokens would be computed in 32 bits, 268 MB. So a window is two comparisons instead.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import masking_utils
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    bidirectional_mask_function,
    causal_mask_function,
    eager_mask,
    sdpa_mask,
)

MaskFunction = Callable[..., torch.Tensor | None]
WINDOW = "sliding_window_bidirectional_overlay"  # transformers' name of the function that _window replaces


@contextmanager
def traceable_masks() -> Iterator[None]:
    """Gives every model of this process these masks until the context ends. Only for a process that does nothing else meanwhile."""
    traceable = {"sdpa": _traceable(sdpa_mask), "eager": _traceable(eager_mask)}
    window = getattr(masking_utils, WINDOW)
    ALL_MASK_ATTENTION_FUNCTIONS.update(traceable)
    setattr(masking_utils, WINDOW, _window)
    try:
        yield
    finally:
        setattr(masking_utils, WINDOW, window)
        for name in traceable:
            del ALL_MASK_ATTENTION_FUNCTIONS[name]  # type: ignore[no-untyped-call]


def _traceable(mask_of: MaskFunction) -> MaskFunction:
    """Wraps `mask_of`, whose masks have shape (batch, 1, queries, keys), and are true or 0 where a query attends to a key."""

    def mask(*args: Any, **options: Any) -> torch.Tensor | None:
        options["use_vmap"] = False  # the tracer cannot follow vmap (Gemma 3 takes it for its windows)
        options["allow_is_bidirectional_skip"] = options["allow_is_causal_skip"] = False  # the example's padding decides nothing
        function, padding = options.get("mask_function"), options.get("attention_mask")
        if function is bidirectional_mask_function and padding is not None:
            return mask_of(*args, **options | {"q_length": 1})
        if function is causal_mask_function:
            positions = torch.arange(options["kv_length"])
            seen = (positions[None, :] <= positions[:, None])[None, None]
            return seen if mask_of is sdpa_mask else torch.where(seen, 0.0, torch.finfo(options["dtype"]).min)
        made = mask_of(*args, **options)
        if made is None or padding is None or options.get("local_size") is None:
            return made
        is_padding = (padding == 0)[:, None, :, None]
        return made | is_padding if made.dtype == torch.bool else made.masked_fill(is_padding, 0)

    return mask


def _window(size: int) -> Callable[..., torch.Tensor]:
    """transformers' window of tokens at most `size` apart, by comparisons."""

    def inner_mask(_batch: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key >= query - size) & (key <= query + size)

    return inner_mask
