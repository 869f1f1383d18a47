"""text-embeddings-inference's POST /predict, which only a classifier answers: parsed, so that what is wrong in it is said first."""

from dataclasses import dataclass
from functools import partial

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.errors import MissingParameter
from gateway.wire.input_count import refuse_too_many
from gateway.wire.json_body import parse_body, wrong_field
from gateway.wire.request import MAX_INPUTS
from gateway.wire.tei import required_model

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
    body = parse_body(raw, _predict_body, partial(wrong_field, expected=EXPECTED))
    if body.inputs is UNSET:
        raise MissingParameter("inputs")
    model = required_model(path_model or default_model, endpoint="predict")
    is_batch = not isinstance(body.inputs, str) and bool(body.inputs) and isinstance(body.inputs[0], list)
    return PredictRequest(model, len(body.inputs) if is_batch else 1)


def _predict_body(raw: bytes) -> PredictBody:
    refuse_too_many(raw, MAX_INPUTS, field="inputs")
    return _decoder.decode(raw)
