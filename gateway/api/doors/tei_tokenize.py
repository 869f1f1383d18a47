"""text-embeddings-inference's /tokenize and /decode, of every kind of model whose tokenizer is on this machine."""

from functools import partial
from itertools import accumulate
from typing import Any

import msgspec

from gateway.api.door import Door, JSONReply, RequestContext
from gateway.api.doors.tei import tei_default
from gateway.api.doors.tei_errors import tei_error
from gateway.api.inference import InferenceHandler
from gateway.api.inference_headers import model_header
from gateway.api.tokenization import OPERATION, tokenize, tokenizer_of
from gateway.embedding.embedder import Inputs
from gateway.embedding.tokens import TokenizedText
from gateway.wire.tei_tokenize import DecodeRequest, SimpleToken, decode_ids, decode_tokenize
from gateway.wire.tokenize import TokenizeRequest

BYTES_PER_TOKEN = 64  # of a reply


def doors(handler: InferenceHandler) -> list[Door[Any]]:
    """The doors /tokenize and /decode."""

    async def answer_tokenize(sent: TokenizeRequest, context: RequestContext) -> JSONReply:
        model, found = await tokenize(handler, sent, context)
        num_bytes = BYTES_PER_TOKEN * sum(len(tokens.ids) for tokens in found)
        return JSONReply(await handler.run_in_thread(num_bytes, _encode, found), model_header(sent.asked.model, model))

    async def answer_decode(sent: DecodeRequest, context: RequestContext) -> JSONReply:
        model = await handler.find_model(sent.model, None, context, num_inputs=len(sent.ids))
        inputs = Inputs(
            texts=[""] * len(sent.ids), token_ids=[*sent.ids], is_array=sent.is_array, caller=context.caller.public_id,
            deadline=context.deadline, field="ids",
        )  # fmt: skip
        texts = await tokenizer_of(model).decode(inputs, skip_special_tokens=sent.skip_special_tokens)
        content = await handler.run_in_thread(sum(map(len, texts)), msgspec.json.encode, texts)
        return JSONReply(content, model_header(sent.model, model))

    shared: dict[str, Any] = {
        "errors": tei_error,
        "default_model": partial(tei_default, handler, "embedder"),
        "needs_json_type": True,
        "operation": OPERATION,
    }
    return [
        Door("/tokenize", "tei_tokenize", decode_tokenize, answer_tokenize, **shared),
        Door("/decode", "tei_decode", decode_ids, answer_decode, **shared),
    ]


def _encode(found: list[TokenizedText]) -> bytes:
    """`[[{"id", "text", "special", "start", "stop"}, …], …]`, a list for each text."""
    return msgspec.json.encode([_simple_tokens(tokens) for tokens in found])


def _simple_tokens(tokens: TokenizedText) -> list[SimpleToken]:
    text = tokens.text
    places: range | list[int] = range(len(text) + 1)
    if not text.isascii():
        places = [0, *accumulate(len(char.encode("utf-8", "surrogatepass")) for char in text)]
    parts = zip(tokens.ids, tokens.pieces, tokens.is_special, tokens.offsets, strict=True)
    return [
        SimpleToken(token_id, piece, True, None, None)
        if is_special
        else SimpleToken(token_id, text[start:stop], False, places[start], places[stop])
        for token_id, piece, is_special, (start, stop) in parts
    ]
