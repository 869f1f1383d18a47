"""Calls for vectors, as the process that answers them sees them: prepared inputs there, an answer with rows back."""

import time

import numpy as np

from gateway.access.limits.local_store import RateState
from gateway.calls.message import EmbedCall, EmbedResult, ReplicaInfo
from gateway.calls.packing import PackedWindows
from gateway.embedding.embedder import Inputs, ModelKind, Prepared, Vectors
from gateway.embedding.vectors import Float32
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.preprocessor import Windows
from gateway.engine.settings import LocalSettings


def prepared_of(call: EmbedCall, packed: PackedWindows, kind: ModelKind) -> Prepared[Windows]:
    """The inputs of a call, which the caller has tokenised, checked and cut. Their texts are not known here."""
    counts = packed.work.counts
    inputs = Inputs(
        [""] * len(counts),
        is_array=packed.is_array,
        caller=call.caller,
        deadline=time.monotonic() + call.seconds,
        normalize=call.normalize,
        query="" if kind == "reranker" else None,
        positions=packed.positions,
        field=call.field,
        weight=call.weight,
        service_class=call.service_class,
    )
    return Prepared(inputs, call.token_counts, call.is_long or [False] * len(counts), call.rule, work=packed.work)


def part_of(prepared: Prepared[Windows], indices: list[int]) -> Prepared[Windows]:
    """Some of the inputs, prepared. Returns itself if `indices` are all of them, in order."""
    if len(indices) == len(prepared.token_counts):
        return prepared
    return Prepared(
        prepared.inputs.only(indices),
        [prepared.token_counts[index] for index in indices],
        [prepared.is_long[index] for index in indices],
        prepared.rule,
        work=prepared.work.only(indices),
    )


def replica_info(local: LocalEmbedder, settings: LocalSettings) -> ReplicaInfo:
    """What another process needs to tokenise as the model does. Blocks for milliseconds: its tokenizer is written as text."""
    return ReplicaInfo(
        description=local.describe(),
        settings=settings,
        network=local.info.network,
        tokenizer_json=local.tokenizer.to_json(),
    )


def result_of(
    number: int, vectors: Vectors, *, backlog_seconds: float = 0.0, num_cached_tokens: int = 0, state: RateState | None = None
) -> EmbedResult:
    """The answer of a call. Its payload is `payload_of` the rows."""
    return EmbedResult(
        number=number,
        dimensions=vectors.rows.shape[1],
        stages=vectors.stages,
        backlog_seconds=backlog_seconds,
        row_counts=vectors.row_counts,
        num_hits=vectors.num_hits,
        num_cached_tokens=num_cached_tokens,
        token_counts=vectors.token_counts,
        member=vectors.member,
        fingerprint=vectors.fingerprint,
        state=state,
    )


def payload_of(rows: Float32) -> bytes | memoryview:
    """The memory of rows, without a copy if it is in one piece."""
    return np.ascontiguousarray(rows).data.cast("B") if rows.size else b""
