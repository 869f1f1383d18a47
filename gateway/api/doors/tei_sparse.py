"""text-embeddings-inference's doors for texts of many rows: /embed_sparse (weights of terms), /embed_all (token vectors).

Only a sparse encoder has the first, only a multi-vector encoder the second. TEI also gives an embedder's token vectors before they
are pooled; here a model is compiled as a whole, pooling included.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.api.door import Door, Embedded, JSONReply, RequestContext
from gateway.api.doors.tei import tei_default, tei_headers
from gateway.api.doors.tei_errors import tei_error
from gateway.api.embeddings import embed
from gateway.api.error_format import RenderedError
from gateway.api.inference import InferenceHandler
from gateway.embedding.embedder import ModelKind
from gateway.errors import GatewayError, WrongModelKind
from gateway.wire import tei_sparse
from gateway.wire.request import EmbeddingsRequest
from gateway.wire.tei import num_characters


@dataclass(frozen=True, slots=True)
class _Form:
    """One of the two: the kind of model that it is for, how its reply is written, and what TEI says of a model of another kind."""

    kind: ModelKind
    encode: Callable[[list[NDArray[np.float32]]], bytes]
    refusal: str


FORMS = {
    "/embed_sparse": _Form(
        "sparse_encoder", tei_sparse.encode_sparse, "Backend error: Model is not an embedding model with SPLADE pooling."
    ),
    "/embed_all": _Form("multi_vector_encoder", tei_sparse.encode_token_vectors, "Backend error: `embed_all` is not available."),
}
BYTES_PER_NUMBER = 18  # of a reply: a weight is two numbers, its term's and its own, in 35 bytes


def doors(handler: InferenceHandler) -> list[Door[Any]]:
    """The doors of FORMS."""
    return [_door(handler, path, form) for path, form in FORMS.items()]


def _door(handler: InferenceHandler, path: str, form: _Form) -> Door[EmbeddingsRequest]:
    def encode(done: Embedded) -> bytes:
        return form.encode(done.vectors.by_input())

    async def answer(asked: EmbeddingsRequest, context: RequestContext) -> JSONReply:
        done = await embed(handler, asked, context, kind=form.kind)
        reply = await handler.reply(done, context, encode, num_bytes=done.rows.size * BYTES_PER_NUMBER)
        reply.headers |= tei_headers(done, context, num_characters=num_characters(done.asked))
        return reply

    name = f"tei_{path.removeprefix('/')}"
    find_default = partial(tei_default, handler, form.kind)
    errors = partial(_error, refusal=form.refusal)
    return Door(path, name, tei_sparse.decode, answer, errors=errors, default_model=find_default, needs_json_type=True)


def _error(error: GatewayError, *, refusal: str) -> RenderedError:
    """As `tei_error`, with `refusal` before our words if the model is of another kind."""
    shown = tei_error(error)
    if not isinstance(error, WrongModelKind):
        return shown
    return RenderedError(shown.status, msgspec.json.encode({"error": f"{refusal} {error.message}", "error_type": "Backend"}))
