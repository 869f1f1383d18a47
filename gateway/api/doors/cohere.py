"""Cohere's door: POST /v2/embed, /v1/embed and /v1/detokenize. /v1/tokenize is ours, and takes Cohere's body too."""

from functools import partial
from typing import Any

import msgspec

from gateway.api.door import Door, Embedded, JSONReply, RequestContext
from gateway.api.embeddings import embed
from gateway.api.error_format import RenderedError
from gateway.api.inference import BYTES_PER_NUMBER, InferenceHandler
from gateway.api.inference_headers import model_header
from gateway.api.tokenization import OPERATION, tokenizer_of
from gateway.embedding.embedder import Inputs
from gateway.errors import GatewayError, InvalidKey, InvalidValue, MissingKey
from gateway.wire import cohere, cohere_response
from gateway.wire.cohere import CohereEmbedRequest, Version
from gateway.wire.cohere_response import CohereError, CohereVersion
from gateway.wire.cohere_tokens import CohereText, CohereTokenMeta, DetokenizeRequest, decode_tokens

PATHS: dict[Version, str] = {"1": "/v1/embed", "2": "/v2/embed"}
# Cohere's own words, which its users know.
MESSAGES: dict[type[GatewayError], str] = {MissingKey: "no api key supplied", InvalidKey: "invalid api token"}


def doors(handler: InferenceHandler) -> list[Door[Any]]:
    """The doors of PATHS, and /v1/detokenize."""
    return [*(_door(handler, version) for version in PATHS), _detokenize_door(handler)]


def cohere_error(error: GatewayError) -> RenderedError:
    return RenderedError(error.status, msgspec.json.encode(CohereError(MESSAGES.get(type(error), error.message))))


def _door(handler: InferenceHandler, version: Version) -> Door[CohereEmbedRequest]:
    async def answer(asked: CohereEmbedRequest, context: RequestContext) -> JSONReply:
        if asked.max_tokens is not None:
            await _refuse_shorter(asked, asked.max_tokens, handler=handler, context=context)
        done = await embed(handler, asked.request, context)
        encode = partial(_encode, asked=asked, request_id=context.record.request_id)
        num_bytes = done.rows.size * BYTES_PER_NUMBER * len(asked.types or "1") + sum(map(len, asked.request.texts))
        return await handler.reply(done, context, encode, num_bytes=num_bytes)

    decode = partial(cohere.decode, version=version)
    return Door(PATHS[version], f"cohere_embed_v{version}", decode, answer, cohere_error)


def _detokenize_door(handler: InferenceHandler) -> Door[DetokenizeRequest]:
    async def answer(sent: DetokenizeRequest, context: RequestContext) -> JSONReply:
        model = await handler.find_model(sent.model, None, context, num_inputs=1)
        inputs = Inputs(
            texts=[""], token_ids=[sent.ids], is_array=False, caller=context.caller.public_id, deadline=context.deadline,
            field="tokens",
        )  # fmt: skip
        [text] = await tokenizer_of(model).decode(inputs, skip_special_tokens=False)
        content = msgspec.json.encode(CohereText(text, CohereTokenMeta(CohereVersion("1"))))
        return JSONReply(content, model_header(sent.model, model))

    return Door("/v1/detokenize", "cohere_detokenize", decode_tokens, answer, cohere_error, operation=OPERATION)


async def _refuse_shorter(
    asked: CohereEmbedRequest, max_tokens: int, *, handler: InferenceHandler, context: RequestContext
) -> None:
    """Raises InvalidValue if texts are to be cut shorter than the model reads: they are cut at what it reads alone."""
    request = asked.request
    model = await handler.find_model(request.model, "embedder", context, num_inputs=len(request.texts))
    if max_tokens < (reads := model.describe().max_tokens):
        raise InvalidValue(
            f"Invalid value for 'max_tokens': texts are cut to the {reads} tokens that the model `{model.name}` reads; send {reads}"
            " or more.",
            param="max_tokens",
        )


def _encode(done: Embedded, *, asked: CohereEmbedRequest, request_id: str) -> bytes:
    num_long = sum(done.prepared.is_long)
    treatment = "split into windows, whose vectors were averaged" if done.prepared.rule == "chunk" else "cut at their end"
    warnings = [f"{num_long} of the texts are longer than the model reads: they were {treatment}."] if num_long else []
    return cohere_response.encode(done.as_dtype, asked, request_id=request_id, num_tokens=done.num_tokens, warnings=warnings)
