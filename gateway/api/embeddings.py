"""POST /v1/embeddings, OpenAI's door."""

from gateway.api.inference import Door, Embedded, InferenceHandler, JSONReply, RequestContext
from gateway.wire import request as wire_request
from gateway.wire import response as wire_response
from gateway.wire.request import EmbeddingsRequest

PATH = "/v1/embeddings"


def door(handler: InferenceHandler) -> Door[EmbeddingsRequest]:
    async def answer(asked: EmbeddingsRequest, context: RequestContext) -> JSONReply:
        return await handler.reply(await handler.embed(asked, context), context, _encode)

    return Door(PATH, "create_embeddings", wire_request.decode, answer)


def _encode(done: Embedded) -> bytes:
    asked = done.asked
    return wire_response.encode(done.rows, model=asked.model, encoding_format=asked.encoding_format, num_tokens=done.num_tokens)
