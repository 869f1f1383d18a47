"""Mixtures of experts for tracing: every expert's matrices in one batched product, as OpenVINO's CPU plugin knows them.

transformers sorts tokens by expert and counts them (histc), which OpenVINO cannot convert. In this form, which transformers' own
exporter for OpenVINO has too, all experts seem to run on every token, and a token's weight is 0 for those that it is not sent to.
The CPU plugin recognises the form, and computes only the experts that a token is sent to (GatherMatmul).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, _default_apply_gate


@contextmanager
def tiled_experts() -> Iterator[None]:
    """Gives every model of this process these experts until the context ends, for a process that does nothing else meanwhile."""
    names = [*ALL_EXPERTS_FUNCTIONS.valid_keys(), "eager"]
    ALL_EXPERTS_FUNCTIONS.update(dict.fromkeys(names, _forward))
    try:
        yield
    finally:
        for name in names:
            del ALL_EXPERTS_FUNCTIONS[name]  # type: ignore[no-untyped-call]


def _forward(experts: Any, tokens: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The experts' outputs for `tokens`, shape (n, hidden), summed. `chosen` are the ids of each token's experts, shape (n, k)."""
    num_tokens, hidden = tokens.shape
    tiled = tokens.repeat(experts.num_experts, 1).view(experts.num_experts, num_tokens, hidden)
    inner = _inner(experts, tiled)
    outputs = _projected(experts, inner, experts.down_proj, _bias(experts, "down_proj")).view(
        experts.num_experts, num_tokens, hidden
    )
    if experts.has_post_expert_norm:
        outputs = experts.post_expert_norm(outputs)
    dense = torch.zeros(num_tokens, experts.num_experts, dtype=tokens.dtype).scatter(1, chosen, weights.to(tokens.dtype))
    summed: torch.Tensor = (outputs * dense.transpose(0, 1)[..., None]).sum(dim=0)
    return summed


def _inner(experts: Any, tiled: torch.Tensor) -> torch.Tensor:
    """What stands between an expert's two projections, shape (experts, n, intermediate)."""
    inner: torch.Tensor
    if not experts.has_gate:
        inner = experts.act_fn(_projected(experts, tiled, experts.up_proj, _bias(experts, "up_proj")))
    elif type(experts)._apply_gate is not _default_apply_gate or not experts.is_concatenated:  # noqa: SLF001
        both = _projected(experts, tiled, experts.gate_up_proj, _bias(experts, "gate_up_proj"))
        inner = experts._apply_gate(both)  # noqa: SLF001
    else:  # gate and up apart, as the plugin knows them
        matrices = experts.gate_up_proj.chunk(2, dim=-1 if experts.is_transposed else -2)
        bias = _bias(experts, "gate_up_proj")
        biases = (None, None) if bias is None else bias.chunk(2, dim=-1)
        gate, up = (_projected(experts, tiled, matrix, bias) for matrix, bias in zip(matrices, biases, strict=True))
        inner = experts.act_fn(gate) * up
    return inner


def _bias(experts: Any, name: str) -> torch.Tensor | None:
    bias: torch.Tensor | None = getattr(experts, f"{name}_bias") if experts.has_bias else None
    return bias


def _projected(experts: Any, inputs: torch.Tensor, matrices: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Rows of shape (experts, n, in) by each expert's matrix, to (experts, n, out)."""
    outputs = torch.bmm(inputs, matrices if experts.is_transposed else matrices.transpose(1, 2))
    return outputs if bias is None else outputs + bias[:, None]
