"""text-embeddings-inference's POST /predict, which only a classifier answers: parsed, so that what is wrong in it is said first."""

from dataclasses import dataclass

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.errors import ClientError, InvalidValue, MissingParameter
from gateway.wire.input_count import refuse_too_many
from gateway.wire.json_body import parse_body, wrong_field
from gateway.wire.request import MAX_INPUTS

EXPECTED = {"inputs": "a string, a pair of strings or an array of arrays of one or two strings"}


class PredictBody(Struct, kw_only=True):
    inputs: str | list[str | list[str]] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class PredictRequest:
    model: str
    num_inputs: int


_decoder = msgspec.json.Decoder(PredictBody)


def decode_predict(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> PredictRequest:
    """Parses a body. Any bytes at all give a request or a ClientError."""
    body = parse_body(raw, _predict_body, _wrong_field)
    if body.inputs is UNSET:
        raise MissingParameter("inputs")
    if not (model := path_model or default_model):
        raise InvalidValue("several models are served here: name one in the path, as /tei/{model}/predict.", param="model")
    is_batch = not isinstance(body.inputs, str) and bool(body.inputs) and isinstance(body.inputs[0], list)
    return PredictRequest(model, len(body.inputs) if is_batch else 1)


def _predict_body(raw: bytes) -> PredictBody:
    refuse_too_many(raw, MAX_INPUTS, field="inputs")
    return _decoder.decode(raw)


def _wrong_field(error: msgspec.ValidationError) -> ClientError:
    return wrong_field(error, EXPECTED, {})
