"""Parses the `documents` of a rerank request: strings, objects, or a mixture of both, as Cohere takes them."""

import msgspec
from msgspec import Raw, Struct

from gateway.errors import MAX_QUOTED_CHARS, EmptyInput, InvalidType, InvalidValue, TooManyInputs
from gateway.wire.json_body import begins

MAX_DOCUMENTS = 8192
MAX_RANK_FIELDS = 64
RANK_FIELDS_ALLOWED = f": expected 1 to {MAX_RANK_FIELDS} names, each once."
EXPECTED = "a string, or an object with a string 'text'"


class TextDocument(Struct):
    """A document as an object. Its other fields are not read."""

    text: str


document_decoder = msgspec.json.Decoder(TextDocument)
texts_decoder = msgspec.json.Decoder(list[str])
elements_decoder = msgspec.json.Decoder(list[Raw])
fields_decoder = msgspec.json.Decoder(dict[str, Raw])


def parse_documents(sent: Raw, rank_fields: tuple[str, ...] | None, *, field: str) -> tuple[list[str], list[Raw] | None]:
    """Returns the text of each document, and the documents as they were sent if any is an object.

    An object's text is its field `text`, or the values of `rank_fields`, each on a line, in their order: Cohere's "sequentially".
    A document may be empty, as TEI's may: one empty page of a hundred makes no request wrong. Raises EmptyInput, TooManyInputs,
    InvalidType and InvalidValue.
    """
    try:
        texts = texts_decoder.decode(sent)
        objects = None
    except msgspec.ValidationError:
        objects = _elements_of(sent, field)
        texts = [_text_of(each, rank_fields, where=f"{field}[{index}]") for index, each in enumerate(objects)]
    refuse_count(len(texts), field=field)
    return texts, objects


def refuse_count(num_documents: int, *, field: str) -> None:
    """Raises EmptyInput and TooManyInputs."""
    if num_documents == 0:
        raise EmptyInput(f"Invalid '{field}': the array must not be empty.", param=field)
    if num_documents > MAX_DOCUMENTS:
        raise TooManyInputs(num_documents, MAX_DOCUMENTS, param=field)


def checked_rank_fields(sent: list[str] | None) -> tuple[str, ...] | None:
    """Raises InvalidValue for a name that is there twice. Their number is checked while the body is parsed."""
    if sent is not None and len(set(sent)) < len(sent):
        raise InvalidValue(f"Invalid value for 'rank_fields'{RANK_FIELDS_ALLOWED}", param="rank_fields")
    return None if sent is None else tuple(sent)


def _elements_of(sent: Raw, field: str) -> list[Raw]:
    try:
        return elements_decoder.decode(sent)
    except msgspec.ValidationError:
        raise InvalidType(f"Invalid type for '{field}': expected an array of strings or objects.", param=field) from None


def _text_of(element: Raw, rank_fields: tuple[str, ...] | None, *, where: str) -> str:
    if begins(element, b'"'):
        return msgspec.json.decode(element, type=str)
    if not begins(element, b"{"):
        raise _wrong_document(where)
    if rank_fields is None:
        return _text_field(element, where)
    values = fields_decoder.decode(element)
    texts = [_text_of_value(values[name], where=f"{where}.{name[:MAX_QUOTED_CHARS]}") for name in rank_fields if name in values]
    found = [text for text in texts if text is not None]
    if not found:
        raise _wrong_document(where, "an object with at least one of the fields of 'rank_fields'")
    return "\n".join(found)


def _text_field(element: Raw, where: str) -> str:
    try:
        return document_decoder.decode(element).text
    except msgspec.ValidationError:
        raise _wrong_document(where) from None


def _text_of_value(value: Raw, *, where: str) -> str | None:
    """A string's text; a number, true and false as they were written; None for null. Raises InvalidType for anything else."""
    if begins(value, b'"'):
        return msgspec.json.decode(value, type=str)
    if begins(value, b"[{"):
        raise InvalidType(f"Invalid type for '{where}': expected a string.", param=where.partition("[")[0])
    return None if bytes(value) == b"null" else bytes(value).decode()


def _wrong_document(where: str, expected: str = EXPECTED) -> InvalidType:
    return InvalidType(f"Invalid type for '{where}': expected {expected}.", param=where.partition("[")[0])
