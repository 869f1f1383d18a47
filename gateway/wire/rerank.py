"""Parses the rerank body that Cohere (v1, v2), Jina, Voyage, vLLM, infinity and LiteLLM share into one shape."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, get_args

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from gateway.config import LongInput
from gateway.errors import InvalidValue, MissingParameter
from gateway.wire.foreign_fields import refuse_second
from gateway.wire.input_count import refuse_too_many
from gateway.wire.json_body import decode_integers, is_sent, parse_body, wrong_field
from gateway.wire.request import MAX_INSTRUCTION_CHARS, model_of
from gateway.wire.rerank_documents import MAX_DOCUMENTS, MAX_RANK_FIELDS, RANK_FIELDS_ALLOWED, checked_rank_fields, parse_documents
from gateway.wire.rerank_fields import ForeignRerankFields, translate

# The JSON Schema of `documents`, which is parsed by hand.
DOCUMENT_FORMS = [{"type": "string"}, {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}]
DOCUMENTS = {"type": "array", "items": {"oneOf": DOCUMENT_FORMS}, "minItems": 1, "maxItems": MAX_DOCUMENTS}

EXPECTED = {
    "query": "a string",
    "documents": "an array of strings or objects",
    "model": "a string",
    "top_n": "an integer",
    "return_documents": "a boolean",
    "raw_scores": "a boolean",
    "rank_fields": "an array of strings",
    "max_tokens_per_doc": "an integer",
    "max_chunks_per_doc": "an integer",
    "long_input": "a string",
    "instruction": "a string",
}
MAX_COUNT = 2**53  # the largest integer that every JSON parser represents exactly
COUNTS = ("top_n", "max_tokens_per_doc", "max_chunks_per_doc")
ALLOWED = {
    **dict.fromkeys(COUNTS, f". Must be from 1 to {MAX_COUNT}."),
    "rank_fields": RANK_FIELDS_ALLOWED,
    "long_input": f". Supported values: {', '.join(map(repr, get_args(LongInput)))}.",
    "instruction": f": expected 1 to {MAX_INSTRUCTION_CHARS} characters.",
}

Positive = Annotated[int, Meta(ge=1, le=MAX_COUNT)]


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A parsed request: `query`, and the text of each document.

    `documents` are the documents as they were sent, if any of them was an object. `top_n` of None is all of them. `field` is the
    client's name of the array. `is_background`: other requests go first. `is_voyage`: the client reads Voyage's reply, in which the
    results are `data`. `max_tokens` is the length that `truncate_prompt_tokens` cuts to: it must be the model's own.
    """

    model: str
    query: str
    texts: list[str]
    documents: list[Raw] | None = None
    top_n: int | None = None
    return_documents: bool = False
    raw_scores: bool = False
    max_tokens_per_doc: int | None = None
    max_chunks_per_doc: int | None = None
    max_tokens: int | None = None
    long_input: LongInput | None = None
    instruction: str | None = None
    field: str = "documents"
    is_background: bool = False
    is_voyage: bool = False

    @property
    def asked_prompt(self) -> str | None:
        return self.instruction


class RerankBody(ForeignRerankFields, kw_only=True):
    """The body, in JSON's types. `null` equals absent, and unknown fields are ignored."""

    query: Annotated[
        str | UnsetType | None,
        Meta(
            description="What the documents are compared with.", extra_json_schema={"oneOf": [{"type": "string", "minLength": 1}]}
        ),
    ] = UNSET
    documents: Annotated[
        Raw | UnsetType,
        Meta(
            description="Texts, objects with a text, or a mixture.",
            extra_json_schema={"oneOf": [DOCUMENTS]},
        ),
    ] = UNSET
    model: Annotated[str | None, Meta(description="A reranker's name or alias, as /v1/models lists them.")] = None
    top_n: Annotated[Positive | None, Meta(description="How many results, the best ones; all by default.")] = None
    return_documents: Annotated[bool | None, Meta(description="Whether each result has its document; false by default.")] = None
    raw_scores: Annotated[
        bool | None, Meta(description="true: scores are the model's logits; by default their sigmoids, from 0 to 1.")
    ] = None
    rank_fields: Annotated[
        Annotated[list[str], Meta(min_length=1, max_length=MAX_RANK_FIELDS, extra_json_schema={"uniqueItems": True})] | None,
        Meta(description="Which fields of objects are the text, in this order; ['text'] by default."),
    ] = None
    max_tokens_per_doc: Annotated[
        Positive | None,
        Meta(description="Cohere's: of a longer document the first so many tokens are read."),
    ] = None
    max_chunks_per_doc: Annotated[
        Positive | None,
        Meta(description="Cohere's: 1 is long_input end; more only where no document is longer than the model reads."),
    ] = None
    long_input: Annotated[
        LongInput | None,
        Meta(description="What becomes of a document longer than the model reads. By default what the model's row says."),
    ] = None
    instruction: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_INSTRUCTION_CHARS)] | None,
        Meta(description="What the query is for, of a model that takes one."),
    ] = None


OWN_FIELDS = ("top_n", "raw_scores", "long_input")  # that a foreign field may stand for
decoder = msgspec.json.Decoder(RerankBody)


def decode(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> RerankRequest:
    """Parses a body. `path_model`, from the path, overrides the body's model; `default_model` is used if neither names one.

    Raises a ClientError that names what is wrong. Any bytes at all give a request or a ClientError.
    """
    body = parse_body(raw, _decode_body, partial(wrong_field, expected=EXPECTED, allowed=ALLOWED))
    foreign = translate(body)
    max_tokens = _honour(foreign, body)
    query = _checked_query(body.query)
    if body.documents is UNSET or not is_sent(body.documents):
        raise MissingParameter("documents")
    rank_fields = checked_rank_fields(body.rank_fields)
    texts, documents = parse_documents(body.documents, rank_fields, field="documents")
    return RerankRequest(
        model=model_of(path_model, body.model, default_model),
        query=query,
        texts=texts,
        documents=documents,
        top_n=body.top_n,
        return_documents=body.return_documents is True,
        raw_scores=body.raw_scores is True,
        max_tokens_per_doc=body.max_tokens_per_doc,
        max_chunks_per_doc=body.max_chunks_per_doc,
        max_tokens=max_tokens,
        long_input=body.long_input,
        instruction=body.instruction,
        is_background="is_background" in foreign and foreign["is_background"][1],
        is_voyage=is_sent(body.top_k) or is_sent(body.truncation),
    )


def _checked_query(query: str | UnsetType | None) -> str:
    """Raises MissingParameter, and InvalidValue for an empty query."""
    if query is None or query is UNSET:
        raise MissingParameter("query")
    if not query:
        raise InvalidValue("Invalid 'query': it cannot be an empty string.", param="query")
    return query


def _honour(asked: dict[str, tuple[str, Any]], body: RerankBody) -> int | None:
    """Fills our fields from foreign ones. Returns the length that long documents are to be cut to, if one was sent.

    Raises InvalidValue if one of our own asks for something else.
    """
    if body.max_chunks_per_doc == 1:
        refuse_second(asked.get("long_input"), "max_chunks_per_doc", "end")
        asked["long_input"] = "max_chunks_per_doc", "end"
    for ours in OWN_FIELDS:
        if ours in asked:
            foreign, value = asked[ours]
            if (own := getattr(body, ours)) is not None:
                refuse_second((ours, own), foreign, value)
            setattr(body, ours, value)
    return asked["max_tokens"][1] if "max_tokens" in asked else None


def _decode_body(raw: bytes) -> RerankBody:
    refuse_too_many(raw, MAX_DOCUMENTS, field="documents", takes_ids=False)
    return decode_integers(raw, decoder, COUNTS)
