"""text-embeddings-inference's form of /rerank: `texts` in, a list of index and score out. Source: TEI 1.9's OpenAPI document."""

from functools import partial
from typing import Annotated, ClassVar

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from numpy.typing import NDArray

from gateway.errors import InvalidValue, MissingParameter
from gateway.wire.input_count import refuse_too_many
from gateway.wire.json_body import is_sent, parse_body, wrong_field
from gateway.wire.rerank import RerankRequest
from gateway.wire.rerank_documents import MAX_DOCUMENTS, refuse_count
from gateway.wire.rerank_response import best_first, scores_of
from gateway.wire.response import Count
from gateway.wire.tei import DIRECTION, LEFT_CUTS_NOTHING, RULES, Direction, refuse_left, required_model

TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_DOCUMENTS}
EXPECTED = {
    "query": "a string",
    "texts": "an array of strings",
    "raw_scores": "a boolean",
    "return_text": "a boolean",
    "truncate": "a boolean",
    "truncation_direction": "'Left' or 'Right'",
}


class TEIRerankBody(Struct, kw_only=True):
    """The body. It names no model."""

    together: ClassVar = LEFT_CUTS_NOTHING
    query: Annotated[
        str | UnsetType | None, Meta(description="It may be empty.", extra_json_schema={"oneOf": [{"type": "string"}]})
    ] = UNSET
    texts: Annotated[list[str] | UnsetType | None, Meta(extra_json_schema={"oneOf": [TEXTS]})] = UNSET
    raw_scores: bool | None = None
    return_text: bool | None = None
    truncate: Annotated[bool | None, Meta(description="true: long texts are cut at their end. By default what the row says.")] = (
        None
    )
    truncation_direction: Annotated[Direction | None, Meta(description=DIRECTION)] = None


class TEIRank(Struct):
    """One text's score."""

    index: Count
    score: float
    text: str | UnsetType = UNSET


class _Outline(Struct):
    """Which of the two shapes a body has."""

    texts: Raw | UnsetType = UNSET
    documents: Raw | UnsetType = UNSET


decoder = msgspec.json.Decoder(TEIRerankBody)
outline = msgspec.json.Decoder(_Outline)
_wrong_field = partial(wrong_field, expected=EXPECTED)


def is_tei(raw: bytes, *, by_path: bool = False) -> bool:
    """Whether a body is in TEI's shape: it has `texts`, or `by_path`, neither them nor `documents`.

    Raises InvalidValue if it has both, InvalidJSON, InvalidType.
    """
    sent = parse_body(raw, outline.decode, _wrong_field)
    has_texts, has_documents = is_sent(sent.texts), is_sent(sent.documents)
    if has_texts and has_documents:
        raise InvalidValue("Invalid value for 'texts': 'documents' says the same; send one of them.", param="texts")
    return has_texts or (by_path and not has_documents)


def decode(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> RerankRequest:
    """Parses a body. Raises a ClientError that names what is wrong."""
    body = parse_body(raw, _decode_body, _wrong_field)
    if body.query is None or body.query is UNSET:
        raise MissingParameter("query")
    if body.texts is None or body.texts is UNSET:
        raise MissingParameter("texts")
    refuse_count(len(body.texts), field="texts")
    refuse_left(body.truncation_direction, truncate=body.truncate)
    return RerankRequest(
        model=required_model(path_model or default_model, endpoint="rerank"),
        query=body.query,
        texts=body.texts,
        return_documents=body.return_text is True,
        raw_scores=body.raw_scores is True,
        long_input=RULES[body.truncate],
        field="texts",
    )


def encode(logits: NDArray[np.float32], asked: RerankRequest) -> bytes:
    """The response's bytes. `logits` has shape (n,), dtype float32."""
    scores = scores_of(logits, raw_scores=asked.raw_scores)
    ranks = [
        {"index": index, **({"text": asked.texts[index]} if asked.return_documents else {}), "score": scores[index]}
        for index in best_first(logits, None)
    ]
    return orjson.dumps(ranks, option=orjson.OPT_SERIALIZE_NUMPY)


def _decode_body(raw: bytes) -> TEIRerankBody:
    refuse_too_many(raw, MAX_DOCUMENTS, field="texts", takes_ids=False)
    return decoder.decode(raw)
