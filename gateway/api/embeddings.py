"""POST /v1/embeddings, OpenAI's door."""

from gateway.api.inference import Door, Embedded, InferenceHandler, JSONReply, RequestContext
from gateway.errors import InvalidValue
from gateway.server.headers import Headers, value_of
from gateway.wire import request as wire_request
from gateway.wire import response as wire_response
from gateway.wire.request import EmbeddingsRequest

PATH = "/v1/embeddings"
OPENAI_SDK = b"openai/"  # OpenAI/Python 1.2.3, AsyncAzureOpenAI/JS 4.5.6, OpenAI/2.1.0 (.NET)


def door(handler: InferenceHandler) -> Door[EmbeddingsRequest]:
    async def answer(asked: EmbeddingsRequest, context: RequestContext) -> JSONReply:
        _refuse_misread(asked, context.headers)
        return await handler.reply(await handler.embed(asked, context), context, _encode)

    return Door(PATH, "create_embeddings", wire_request.decode, answer)


def _refuse_misread(asked: EmbeddingsRequest, headers: Headers) -> None:
    """Raises InvalidValue if OpenAI's own SDK would read the reply's base64 as float32, whatever it is, and return noise.

    The SDK asks for base64 unless the caller names a format, so its body is the same as that of a client that decodes base64
    by its type, as Voyage's does: only its headers differ.
    """
    dtype = asked.output_dtypes[0]
    if dtype == "float" or asked.encoding_format != "base64":
        return
    agent = value_of(headers, b"user-agent") or b""
    if value_of(headers, b"x-stainless-lang") is not None or OPENAI_SDK in agent.lower():
        raise InvalidValue(
            "Invalid value for 'encoding_format': OpenAI's SDKs ask for 'base64' and read it as float32, whatever the output_dtype;"
            f" with '{dtype}' that would be noise. Send encoding_format 'float': the reply then has numbers.",
            param="encoding_format",
        )


def _encode(done: Embedded) -> bytes:
    asked = done.asked
    return wire_response.encode(
        done.as_dtype(asked.output_dtypes[0]), model=asked.model, encoding_format=asked.encoding_format, num_tokens=done.num_tokens
    )
