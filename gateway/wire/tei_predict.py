"""text-embeddings-inference's POST /predict, which only a classifier answers: parsed, so that what is wrong in it is said first."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.errors import InvalidType, MissingParameter, TooManyInputs
from gateway.wire.input_count import refuse_too_many
from gateway.wire.json_body import parse_body, wrong_field
from gateway.wire.request import MAX_INPUTS
from gateway.wire.tei import EXPECTED as OF_TEI
from gateway.wire.tei import Direction, array_of, required_model

EXPECTED = {
    **OF_TEI,
    "inputs": "a string, a pair of strings or an array of arrays of one or two strings",
    "raw_scores": "a boolean",
}
PAIR = 2
ONE_OR_TWO: dict[str, object] = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": PAIR}
FORMS = [{"type": "string"}, ONE_OR_TWO, array_of(ONE_OR_TWO)]


class PredictBody(Struct, kw_only=True):
    inputs: Annotated[str | list[str | list[str]] | UnsetType, Meta(extra_json_schema={"oneOf": FORMS})] = UNSET
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    raw_scores: bool = False


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
    num_inputs = _num_inputs(body.inputs)
    if num_inputs > MAX_INPUTS:
        raise TooManyInputs(num_inputs, MAX_INPUTS, param="inputs")
    return PredictRequest(required_model(path_model or default_model, endpoint="predict"), num_inputs)


def _num_inputs(sent: str | list[str | list[str]]) -> int:
    """A string and an array of one or two are one input, an array of such arrays several. Raises InvalidType for any other form."""
    if isinstance(sent, str) or (all(isinstance(each, str) for each in sent) and 1 <= len(sent) <= PAIR):
        return 1
    if sent and all(isinstance(each, list) and 1 <= len(each) <= PAIR for each in sent):
        return len(sent)
    raise InvalidType(f"Invalid type for 'inputs': expected {EXPECTED['inputs']}.", param="inputs")


def _predict_body(raw: bytes) -> PredictBody:
    refuse_too_many(raw, MAX_INPUTS, field="inputs")
    return _decoder.decode(raw)
