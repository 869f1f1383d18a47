"""The OpenAPI operations of text-embeddings-inference's door, and of /v1/tokenize. TEI's statuses of errors are its own."""

from functools import partial

from gateway.api.doors.tei_errors import TEIError, tei_status
from gateway.api.error_format import JSON
from gateway.api.info import ServiceInfo, TEIInfo
from gateway.api.openapi.either_operation import EitherOperation
from gateway.api.openapi.json_schema import Schema, reference
from gateway.api.openapi.operation import Errors, Operation
from gateway.api.openapi.operations import OF_EMBEDDINGS
from gateway.api.response_headers import EMBEDDINGS, LIMITS, MODEL, TEI
from gateway.errors import (
    BodyTooLarge,
    DeadlinePassed,
    EmptyInput,
    InputTooLong,
    InsufficientQuota,
    InvalidJSON,
    InvalidType,
    LimiterUnavailable,
    MissingParameter,
    ModelLoading,
    ModelUnavailable,
    RateLimited,
    RequestTooLong,
    TooManyInputs,
    UnknownModel,
    UnsupportedEncoding,
    UnsupportedMediaType,
    WrongModelKind,
)
from gateway.wire.cohere_response import CohereError
from gateway.wire.cohere_tokens import CohereTokens
from gateway.wire.tei import EmbedBody, Sentences, SimilarityBody, TextOptions, VertexBody
from gateway.wire.tei_predict import PredictBody
from gateway.wire.tei_sparse import SparseValue
from gateway.wire.tei_tokenize import SimpleToken, TEIDecodeBody, TEITokenizeBody
from gateway.wire.tokenize import TextTokens, TokenizeBody, TokenizeResponse

TEI_PARSED = (
    EmbedBody,
    SimilarityBody,
    Sentences,
    TextOptions,
    VertexBody,
    PredictBody,
    TEITokenizeBody,
    TEIDecodeBody,
    TokenizeBody,
)
TEI_SERVED = (SparseValue, TEIError, TEIInfo, SimpleToken, TokenizeResponse, TextTokens)

OF_TOKENS: Errors = (
    InvalidJSON, InvalidType, BodyTooLarge, UnsupportedEncoding, MissingParameter, TooManyInputs, InputTooLong, RequestTooLong,
    UnknownModel, RateLimited, InsufficientQuota, ModelLoading, ModelUnavailable, LimiterUnavailable, DeadlinePassed,
)  # fmt: skip
OF_TEI: Errors = (EmptyInput, UnsupportedMediaType)
NUMBER: Schema = {"type": "number"}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _body(kind: type, *required: str) -> Schema:
    return {"required": True, "content": {JSON: {"schema": _schema(kind, *required)}}}


def _schema(kind: type, *required: str) -> Schema:
    return {"allOf": [reference(kind), {"required": list(required)}]}


_tei = partial(Operation, tag="other servers", error_body=TEIError, status_of=tei_status, error_types=(JSON, "text/plain"))
_embed = partial(_tei, errors=(*OF_EMBEDDINGS, *OF_TEI), headers=(*EMBEDDINGS, *TEI), shared_headers=LIMITS)
_tokens = partial(_tei, errors=(*OF_TOKENS, *OF_TEI), headers=MODEL, shared_headers=LIMITS)

# Rows of tokens and of terms cannot be cut.
UNCUT_BODY: Schema = {
    "required": True,
    "content": {
        JSON: {
            "schema": {"allOf": [reference(EmbedBody), {"required": ["inputs"], "properties": {"dimensions": {"type": "null"}}}]}
        }
    },
}
VECTORS = _array(_array(NUMBER))
EITHER_BODY: Schema = {
    "required": True,
    "content": {JSON: {"schema": {"anyOf": [_schema(kind, "inputs") for kind in (EmbedBody, SimilarityBody)]}}},
}  # fmt: skip
EITHER_REPLY: Schema = {"anyOf": [VECTORS, _array(NUMBER)]}

INPUT_ALONE: Schema = {"required": ["input"], "properties": {"input": {"not": {"type": "null"}}, "text": {"type": "null"}}}
TEXT_ALONE: Schema = {"required": ["text"], "properties": {"input": {"type": "null"}, "text": {"type": "string"}}}


def _tokenize_body(form: Schema) -> Schema:
    return {"required": True, "content": {JSON: {"schema": {"allOf": [reference(TokenizeBody), form]}}}}


TEI_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/tokenize"): EitherOperation(
        name="tokenize", tag="embeddings", summary="Turn texts into the model's own tokens", reply=TokenizeResponse,
        body=_tokenize_body(INPUT_ALONE), errors=OF_TOKENS, headers=MODEL, shared_headers=LIMITS, other_door="/v1/embed",
        other=Operation(
            name="tokenize", tag="embeddings", summary="a body with text is Cohere's", reply=CohereTokens,
            body=_tokenize_body(TEXT_ALONE), errors=OF_TOKENS, headers=MODEL, shared_headers=LIMITS, error_body=CohereError,
        ),
    ),
    ("POST", "/embed"): _embed(
        name="teiEmbed", summary="Turn texts into vectors, as text-embeddings-inference's clients ask",
        body=_body(EmbedBody, "inputs"), reply=VECTORS,
    ),
    ("POST", "/similarity"): _embed(
        name="teiSimilarity", summary="Compare a sentence with others", body=_body(SimilarityBody, "inputs"), reply=_array(NUMBER)
    ),
    ("POST", "/"): _embed(name="teiRoot", summary="As /embed or /similarity, by the body", body=EITHER_BODY, reply=EITHER_REPLY),
    ("POST", "/invocations"): _embed(name="teiInvocations", summary="The same", body=EITHER_BODY, reply=EITHER_REPLY),
    ("POST", "/vertex"): _embed(
        name="teiVertex", summary="As /embed, several at once", body=_body(VertexBody, "instances"),
        reply={"type": "object", "properties": {"predictions": _array(VECTORS)}, "required": ["predictions"]},
    ),
    ("POST", "/embed_sparse"): _embed(
        name="teiEmbedSparse", summary="Weigh the terms of texts, by a sparse encoder", body=UNCUT_BODY,
        reply=_array(_array(reference(SparseValue))),
    ),
    ("POST", "/embed_all"): _embed(
        name="teiEmbedAll", summary="Turn each token into a vector, by a multi-vector encoder", body=UNCUT_BODY,
        reply=_array(VECTORS),
    ),
    ("POST", "/predict"): _tei(
        name="teiPredict", summary="Refused: no model here is a classifier", body=_body(PredictBody, "inputs"), reply=TEIError,
        status=tei_status(WrongModelKind), errors=(*OF_TOKENS, *OF_TEI, WrongModelKind), shared_headers=LIMITS,
    ),
    ("POST", "/tokenize"): _tokens(
        name="teiTokenize", summary="Turn texts into the model's own tokens, as TEI's clients ask",
        body=_body(TEITokenizeBody, "inputs"), reply=_array(_array(reference(SimpleToken))),
    ),
    ("POST", "/decode"): _tokens(
        name="teiDecode", summary="Turn ids of the model's own tokens into texts", body=_body(TEIDecodeBody, "ids"),
        reply=_array({"type": "string"}),
    ),
    ("GET", "/info"): Operation(
        name="info", tag="models", summary="What serves, as the clients of TEI and of Azure AI ask for it",
        reply={"anyOf": [reference(TEIInfo), reference(ServiceInfo)]}, errors=(UnknownModel, ModelLoading, ModelUnavailable),
    ),
}  # fmt: skip
