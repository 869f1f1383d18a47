"""POST /v1/rerank, /rerank and /v2/rerank: scores of a query and documents. On /rerank a body with `texts` is TEI's."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from gateway.api.body import refuse_other_types
from gateway.api.default_model import default_model
from gateway.api.door import Computed, Door, JSONReply, RequestContext
from gateway.api.doors.tei import tei_default, tei_headers
from gateway.api.doors.tei_errors import tei_error
from gateway.api.embeddings import refuse_other_length
from gateway.api.error_format import openai_error
from gateway.api.inference import InferenceHandler
from gateway.config import DoorSettings
from gateway.embedding.embedder import Description, Inputs, Prepared
from gateway.embedding.prompt import resolve_instruction
from gateway.errors import InvalidValue, Unembeddable
from gateway.wire import rerank as wire_rerank
from gateway.wire import rerank_response, tei_rerank
from gateway.wire.rerank import RerankRequest

Reranked: TypeAlias = Computed[RerankRequest]


@dataclass(frozen=True, slots=True)
class UndecodedBody:
    """A body on /rerank: whether it is TEI's is known, and nothing else yet."""

    raw: bytes
    is_tei: bool
    path_model: str | None
    default_model: str | None


def doors(handler: InferenceHandler, settings: DoorSettings) -> list[Door[Any]]:
    """The doors of rerank. /rerank takes TEI's bodies too, unless TEI's doors are closed."""
    find_default = partial(default_model, handler.catalog, handler.settings, "reranker")
    door = partial(Door, default_model=find_default, operation="rerank")
    v1, v2 = partial(_answer, handler, "1"), partial(_answer, handler, "2")
    return [
        door("/v1/rerank", "rerank", wire_rerank.decode, v1),
        door("/v2/rerank", "rerank_v2", wire_rerank.decode, v2),
        Door(
            "/rerank", "rerank_or_tei", _decode_either, partial(_answer_either, handler), operation="rerank",
            default_model=partial(tei_default, handler, "reranker"),
        ) if settings.tei
        else door("/rerank", "rerank_unversioned", wire_rerank.decode, v1),
    ]  # fmt: skip


async def rerank(handler: InferenceHandler, asked: RerankRequest, context: RequestContext) -> Reranked:
    """Scores the documents of a request that any door parsed. `rows` are the logits, of shape (n, 1)."""
    model = await handler.find_model(asked.model, "reranker", context, num_inputs=len(asked.texts))
    about = model.describe()
    refuse_other_length(asked.max_tokens, model, what="documents")
    prepared = await handler.prepare(model, _inputs_of(asked, about, context), context)
    _refuse_other_windows(asked, prepared)
    vectors, token_counts = await handler.compute(model, prepared, context)
    if (is_number := ~np.isnan(vectors.rows[:, 0])).all():
        return Computed(asked, model, prepared, vectors, vectors.rows, token_counts)
    raise Unembeddable(prepared.inputs.where(int(np.argmin(is_number))), "its score is not a number")


async def _answer(handler: InferenceHandler, version: str, asked: RerankRequest, context: RequestContext) -> JSONReply:
    def encode(done: Reranked) -> bytes:
        return rerank_response.encode(
            done.rows[:, 0], asked, request_id=context.record.request_id, version=version, num_tokens=done.num_tokens
        )

    done = await rerank(handler, asked, context)
    return await handler.reply(done, context, encode, num_bytes=rerank_response.num_bytes(asked))


def _decode_either(raw: bytes, *, path_model: str | None, default_model: str | None) -> UndecodedBody:
    # Only /tei/{model}/rerank names a model.
    return UndecodedBody(raw, tei_rerank.is_tei(raw, by_path=path_model is not None), path_model, default_model)


async def _answer_either(handler: InferenceHandler, body: UndecodedBody, context: RequestContext) -> JSONReply:
    """Parses the body once it is known in whose words its errors are written."""
    decode = tei_rerank.decode if body.is_tei else wire_rerank.decode
    context.record.error_format = tei_error if body.is_tei else openai_error
    if body.is_tei:
        refuse_other_types(context.headers)
    asked = await handler.run_in_thread(
        len(body.raw), decode, body.raw, path_model=body.path_model, default_model=body.default_model
    )
    if not body.is_tei:
        return await _answer(handler, "1", asked, context)
    done = await rerank(handler, asked, context)
    num_bytes = rerank_response.num_bytes(asked)
    reply = await handler.reply(done, context, lambda done: tei_rerank.encode(done.rows[:, 0], asked), num_bytes=num_bytes)
    num_characters = sum(len(asked.query) + len(text) for text in asked.texts)
    reply.headers |= tei_headers(done, context, num_characters=num_characters)
    return reply


def _inputs_of(asked: RerankRequest, about: Description, context: RequestContext) -> Inputs:
    """Raises InvalidValue for an instruction if the model takes none."""
    inputs = Inputs(
        texts=asked.texts,
        is_array=True,
        caller=context.caller.public_id,
        deadline=context.deadline,
        long_input=asked.long_input,
        query=asked.query,
        max_document_tokens=asked.max_tokens_per_doc,
        field=asked.field,
        service_class="background" if asked.is_background else "interactive",
    )
    if asked.instruction is None:
        return inputs
    return replace(inputs, input_type=resolve_instruction(asked.instruction, None, about), instruction=asked.instruction)


def _refuse_other_windows(asked: RerankRequest, prepared: Prepared[object]) -> None:
    """Raises InvalidValue if Cohere's bound would let a long document count by fewer of its windows than it does."""
    if asked.max_chunks_per_doc in (None, 1) or prepared.rule != "chunk" or not any(prepared.is_long):
        return
    where = prepared.inputs.where(prepared.is_long.index(True))
    raise InvalidValue(
        f"Invalid value for 'max_chunks_per_doc': '{where}' is longer than the model reads, and the best of all its windows counts."
        " Leave it out, or send 1, which reads the first one alone.",
        param="max_chunks_per_doc",
    )
