"""Attention masks for tracing: transformers' own, changed so that padding rows stay finite too.

With sliding-window attention, a padding row may attend to nothing but padding. Torch gives such a row zeros. OpenVINO gives it the
softmax of nothing: NaN, which the next layer spreads to every token. So each token attends at least to itself. Rows of real tokens
do not change, as they attend to themselves anyway; rows of padding are never read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask

MaskFunction = Callable[..., torch.Tensor | None]


@contextmanager
def traceable_masks() -> Iterator[None]:
    """Gives every model of this process these masks until the context ends. Only for a process that does nothing else meanwhile."""
    traceable = {"sdpa": _seeing_itself(sdpa_mask), "eager": _seeing_itself(eager_mask)}
    ALL_MASK_ATTENTION_FUNCTIONS.update(traceable)
    try:
        yield
    finally:
        for name in traceable:
            del ALL_MASK_ATTENTION_FUNCTIONS[name]  # type: ignore[no-untyped-call]


def _seeing_itself(mask_of: MaskFunction) -> MaskFunction:
    """Wraps `mask_of` so that each token attends to itself.

    Masks have shape (batch, 1, queries, keys), and are true or 0 where a query attends to a key.
    """

    def mask(*args: Any, **options: Any) -> torch.Tensor | None:
        made = mask_of(*args, **options | {"use_vmap": False})  # the tracer cannot follow vmap (Gemma 3 takes it for its windows)
        if made is None or options.get("local_size") is None:
            return made
        queries, keys = (torch.arange(made.shape[axis], device=made.device) for axis in (-2, -1))
        is_itself = queries[:, None] == keys[None, :]
        return made | is_itself if made.dtype == torch.bool else made.masked_fill(is_itself, 0)

    return mask
