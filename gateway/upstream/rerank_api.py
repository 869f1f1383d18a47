"""Finds out in which form a server wants to be asked for scores, and whether these are logits or probabilities.

    form            the first of the dialect's that the server understands
    logits          a score lies outside 0 to 1: llama.cpp, with most models
    on request      scores whose sigmoids are those that it gives unasked: infinity and another gateway by `raw_scores`, vLLM by
                    `use_activation` (`activation` in older versions)
    probabilities   all else, which is put through the inverse of the sigmoid

Values decide, not names: llama.cpp gives probabilities where the model is Qwen3-Reranker (withcatai/node-llama-cpp#617). Logits
that all lie between 0 and 1 by chance keep their order until one lies outside; then the server is measured again.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gateway.embedding.vectors import Float32
from gateway.log import get_logger
from gateway.upstream import failures, scores
from gateway.upstream.client import UpstreamClient
from gateway.upstream.dialect import SAME, ServerApi
from gateway.upstream.failures import AttemptFailed
from gateway.upstream.probe import COMPANY

RAW_FIELDS: tuple[tuple[str, Any], ...] = (("raw_scores", True), ("use_activation", False), ("activation", False))
NOT_UNDERSTOOD = frozenset({"nonsense", "unembeddable", "missing", "unexpected", "bad_request", "too_long"})
SAME_PROBABILITY = 0.01

log = get_logger()

Sample = Callable[[list[str], ServerApi], Awaitable[Float32]]


async def find_rerank_api(client: UpstreamClient, sample: Sample) -> ServerApi:
    """`sample` scores texts through one API. Returns the API to use. Raises AttemptFailed if the server understands none."""
    if not client.dialect.apis:
        return SAME
    api, texts, plain = await _first_understood(client, sample)
    if client.has_given_logits or not scores.are_probabilities(plain):
        return api
    for field in RAW_FIELDS if api is client.dialect.apis[0] else ():  # the others refuse fields that they do not know
        raw = replace(api, fields=(field,))
        try:
            logits = await sample(texts, raw)
        except AttemptFailed as failed:
            if not _may_be_form(failed):
                raise
            continue
        if _is_raw(logits, plain):
            return raw
    log.info("upstream_gives_probabilities", model=client.upstream.name, hint="its logits are computed from them")
    return replace(api, are_probabilities=True)


async def _first_understood(client: UpstreamClient, sample: Sample) -> tuple[ServerApi, list[str], Float32]:
    """Tries each API with several documents, then, as a server may take only one at once, with one.

    Raises AttemptFailed with the first failure.
    """
    first: AttemptFailed | None = None
    several = list(COMPANY)[: client.limits.max_inputs]
    for texts in (several, several[:1]):
        for api in client.dialect.apis:
            try:
                return api, texts, await sample(texts, api)
            except AttemptFailed as failed:
                if not _may_be_form(failed):
                    raise
                first = first or failed
        if len(several) == 1 or first is None or first.failure.refusal is None:
            break
    raise AttemptFailed(failures.of_no_scores(first.failure, client.upstream)) if first else AssertionError


def _may_be_form(failed: AttemptFailed) -> bool:
    """Whether another form may pass: not if the key is refused, or the server unavailable."""
    return failed.failure.refusal is not None or failed.failure.outcome in NOT_UNDERSTOOD


def _is_raw(logits: Float32, plain: Float32) -> bool:
    """Whether these are the logits of the probabilities that it gives unasked."""
    apart = np.abs(scores.sigmoid(logits.astype(np.float64)) - plain)
    return bool((apart < SAME_PROBABILITY).all() and (np.abs(logits - plain) > SAME_PROBABILITY).any())
