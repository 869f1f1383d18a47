"""What the doors that tokenise share, and POST /v1/tokenize, our own.

A request is charged as one, its tokens are not: no model computes. All other limits hold, of bodies, texts and time.
"""

from dataclasses import dataclass
from functools import partial

import msgspec
from msgspec import UNSET

from gateway.api.door import Door, JSONReply, RequestContext
from gateway.api.embeddings import inputs_of
from gateway.api.error_format import ErrorFormat, openai_error
from gateway.api.inference import InferenceHandler
from gateway.api.inference_headers import model_header
from gateway.embedding.model import Model
from gateway.embedding.tokens import TextTokenizer, TokenizedText
from gateway.errors import InvalidValue
from gateway.wire import tokenize as wire_tokenize
from gateway.wire.cohere_response import CohereVersion
from gateway.wire.cohere_tokens import CohereTokenMeta, CohereTokens
from gateway.wire.response import EmbeddingsUsage
from gateway.wire.tokenize import TextTokens, TokenizeRequest, TokenizeResponse

PATH = "/v1/tokenize"
OPERATION = "tokenize"
BYTES_PER_TOKEN = 32  # of a reply, with offsets


@dataclass(frozen=True, slots=True)
class UndecodedText:
    """A body on /v1/tokenize: whether it is Cohere's is known, and nothing else yet."""

    raw: bytes
    is_cohere: bool
    path_model: str | None
    default_model: str | None


def door(handler: InferenceHandler, *, cohere_error: ErrorFormat | None) -> Door[UndecodedText]:
    """`cohere_error`: how errors are written for a body with Cohere's `text`, which is answered as Cohere does; None: no body is
    Cohere's."""
    takes_text = cohere_error is not None

    def decode(raw: bytes, *, path_model: str | None, default_model: str | None) -> UndecodedText:
        return UndecodedText(raw, takes_text and wire_tokenize.is_cohere(raw), path_model, default_model)

    async def answer(body: UndecodedText, context: RequestContext) -> JSONReply:
        if body.is_cohere:
            context.record.error_format = cohere_error or openai_error
        parse = partial(wire_tokenize.decode, takes_text=takes_text, path_model=body.path_model, default_model=body.default_model)
        sent = await handler.run_in_thread(len(body.raw), parse, body.raw)
        model, found = await tokenize(handler, sent, context)
        num_bytes = BYTES_PER_TOKEN * sum(len(tokens.ids) for tokens in found)
        max_tokens = model.describe().max_tokens
        content = await handler.run_in_thread(num_bytes, _encode, sent, found, max_tokens=max_tokens)
        return JSONReply(content, model_header(sent.asked.model, model))

    return Door(PATH, "tokenize", decode, answer, operation=OPERATION)


async def tokenize(handler: InferenceHandler, sent: TokenizeRequest, context: RequestContext) -> tuple[Model, list[TokenizedText]]:
    """Returns the model of any kind, and the tokens of each text. Raises InvalidValue if the model's tokenizer is not here."""
    asked = sent.asked
    model = await handler.find_model(asked.model, None, context, num_inputs=len(asked.texts))
    try:
        inputs = inputs_of(asked, context, model)
    except InvalidValue as error:
        raise error.named(asked.sent_as) from None
    return model, await tokenizer_of(model).tokenize(inputs, add_special_tokens=sent.add_special_tokens)


def tokenizer_of(model: Model) -> TextTokenizer:
    """The model's own tokenizer. Raises InvalidValue if it is not on this machine."""
    embedder = model.built or model.embedder
    if isinstance(embedder, TextTokenizer):
        return embedder
    raise InvalidValue(
        f"Invalid value for 'model': the tokenizer of `{model.name}` is not on this server, but where the model is.", param="model"
    )


def _encode(request: TokenizeRequest, found: list[TokenizedText], *, max_tokens: int) -> bytes:
    if request.is_cohere:
        [tokens] = found
        return msgspec.json.encode(CohereTokens(tokens.ids, tokens.pieces, CohereTokenMeta(CohereVersion("1"))))
    asked = request.asked
    data = [
        TextTokens("tokens", index, tokens.ids, len(tokens.ids), _offsets_of(text, tokens) if request.return_offsets else UNSET)
        for index, (text, tokens) in enumerate(zip(asked.texts, found, strict=True))
    ]
    total = sum(len(tokens.ids) for tokens in found)
    return msgspec.json.encode(TokenizeResponse("list", data, asked.model, max_tokens, EmbeddingsUsage(total, total)))


def _offsets_of(text: str, tokens: TokenizedText) -> list[tuple[int, int]]:
    """The offsets in the client's text: without the prompt before it."""
    num_before = len(tokens.text) - len(text)
    return [(max(0, start - num_before), max(0, stop - num_before)) for start, stop in tokens.offsets]
