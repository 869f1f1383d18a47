"""text-embeddings-inference's door for vectors: /embed, /similarity, /vertex, and /, which huggingface_hub's clients post to.

TEI serves one model and names none. Here it is the one in the path, /tei/{model}/embed, else the default embedder.
"""

from functools import partial
from typing import Any

from gateway.access.keys.key import Caller
from gateway.api.default_model import default_model
from gateway.api.door import Computed, Decode, Door, Embedded, InferenceRequest, JSONReply, RequestContext
from gateway.api.doors.tei_errors import tei_error
from gateway.api.embeddings import embed
from gateway.api.error_format import ErrorFormat
from gateway.api.inference import InferenceHandler
from gateway.api.models import usable_names
from gateway.embedding.embedder import ModelKind
from gateway.errors import InvalidValue, WrongModelKind
from gateway.wire import tei
from gateway.wire.tei import TEIRequest
from gateway.wire.tei_predict import PredictRequest, decode_predict

DECODERS: dict[str, tuple[str, Decode[TEIRequest]]] = {
    "/embed": ("tei_embed", tei.decode_embed),
    "/similarity": ("tei_similarity", tei.decode_similarity),
    "/": ("tei_root", tei.decode_any),
    "/invocations": ("tei_invocations", tei.decode_any),
    "/vertex": ("tei_vertex", tei.decode_vertex),
}
ERROR_FORMATS: dict[str, ErrorFormat] = {"/tei/info": tei_error, "/tei/rerank": tei_error}
TOO_MANY_DIMENSIONS = "`dimensions` should be smaller than the maximum embedding dimension."  # TEI's words
MILLISECONDS = 1000


def doors(handler: InferenceHandler) -> list[Door[Any]]:
    """The doors of DECODERS, and /predict, which refuses every model."""

    async def answer(sent: TEIRequest, context: RequestContext) -> JSONReply:
        done = await _embed(handler, sent, context)
        reply = await handler.reply(done, context, lambda done: sent.encode(done.rows))
        reply.headers |= tei_headers(done, context, num_characters=tei.num_characters(done.asked))
        return reply

    async def refuse(sent: PredictRequest, context: RequestContext) -> JSONReply:
        model = await handler.find_model(sent.model, None, context, num_inputs=sent.num_inputs)
        raise WrongModelKind(model.name, model.describe().kind, wanted="classifier")

    find_default = partial(tei_default, handler, "embedder")
    return [
        *[
            Door(path, name, decode, answer, errors=tei_error, default_model=find_default, needs_json_type=True)
            for path, (name, decode) in DECODERS.items()
        ],
        Door(
            "/predict", "tei_predict", decode_predict, refuse, errors=tei_error, default_model=find_default,
            needs_json_type=True, operation="predict",
        ),
    ]  # fmt: skip


def tei_default(handler: InferenceHandler, kind: ModelKind, caller: Caller) -> str | None:
    """The default model of this kind; else the only model that the key may use, whose refusal says what it is."""
    if found := default_model(handler.catalog, handler.settings, kind, caller):
        return found
    models = {handler.catalog.find(name).name for name in usable_names(handler.catalog, caller)}
    return models.pop() if len(models) == 1 else None


async def _embed(handler: InferenceHandler, sent: TEIRequest, context: RequestContext) -> Embedded:
    try:
        return await embed(handler, sent.asked, context)
    except InvalidValue as error:
        if error.param != "dimensions":
            raise
        raise InvalidValue(f"{TOO_MANY_DIMENSIONS} {error.message}", param=error.param) from None


def tei_headers(done: Computed[InferenceRequest], context: RequestContext, *, num_characters: int) -> dict[str, str]:
    """TEI's own headers. Tokens are those that were read: of a text that was cut, what the model reads at once."""
    stages, about = context.record.stages, done.model.describe()
    is_cut = done.prepared.rule == "end"
    num_tokens = sum(min(count, about.max_tokens) for count in done.token_counts) if is_cut else done.num_tokens
    total = _milliseconds(context.record.seconds)
    return {
        "x-compute-type": "gpu+optimized" if "cuda" in about.device else "cpu+optimized",
        "x-compute-time": total,
        "x-compute-characters": str(num_characters),
        "x-compute-tokens": str(num_tokens),
        "x-total-time": total,
        "x-tokenization-time": _milliseconds(stages.get("tokenize", 0.0)),
        "x-queue-time": _milliseconds(stages.get("queue", 0.0)),
        "x-inference-time": _milliseconds(stages.get("compute", stages.get("upstream", 0.0))),
    }


def _milliseconds(seconds: float) -> str:
    return str(round(MILLISECONDS * seconds))
