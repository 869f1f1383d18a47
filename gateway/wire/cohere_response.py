"""Writes vectors as Cohere's embed API replies, v1 and v2. Sources: as of `gateway/wire/cohere.py`."""

import base64
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from gateway.config import OutputDtype
from gateway.wire.cohere import CohereEmbedRequest, EmbeddingType, Version

Int8 = Annotated[int, Meta(ge=-128, le=127)]
UInt8 = Annotated[int, Meta(ge=0, le=255)]


class CohereError(Struct, frozen=True):
    """The body of every error at Cohere's paths."""

    message: Annotated[str, Meta(description="For people.")]


class CohereVersion(Struct, frozen=True):
    version: Version


class CohereBilledUnits(Struct, frozen=True):
    """Tokens by the model's own tokenizer, special tokens and prompt included."""

    input_tokens: Annotated[int, Meta(ge=0)]


class CohereMeta(Struct, frozen=True):
    api_version: CohereVersion
    billed_units: CohereBilledUnits
    warnings: Annotated[list[str] | UnsetType, Meta(description="That texts were cut.")] = UNSET


class CohereEmbeddings(Struct, rename={"floats": "float"}):
    """The requested types, each with a vector for each text."""

    floats: list[list[float]] | UnsetType = UNSET
    int8: list[list[Int8]] | UnsetType = UNSET
    uint8: list[list[UInt8]] | UnsetType = UNSET
    binary: list[list[Int8]] | UnsetType = UNSET
    ubinary: list[list[UInt8]] | UnsetType = UNSET
    base64: list[str] | UnsetType = UNSET


class CohereEmbedReply(Struct):
    """The whole reply. `id` is the request's id."""

    id: str
    texts: list[str]
    embeddings: CohereEmbeddings
    meta: CohereMeta
    response_type: Literal["embeddings_by_type"]


class CohereFloatsReply(Struct):
    """The reply of v1 without types."""

    id: str
    texts: list[str]
    embeddings: list[list[float]]
    meta: CohereMeta
    response_type: Literal["embeddings_floats"]


def encode(
    as_dtype: Callable[[OutputDtype], NDArray[Any]],
    asked: CohereEmbedRequest,
    *,
    request_id: str,
    num_tokens: int,
    warnings: list[str],
) -> bytes:
    """The reply's bytes. `as_dtype` gives the vectors in a type, of shape (n, d), in the order of the texts.

    A float is the shortest text that parses to the same float32.
    """
    meta: dict[str, Any] = {"api_version": {"version": asked.version}, "billed_units": {"input_tokens": num_tokens}}
    if warnings:
        meta["warnings"] = warnings
    embeddings = _encoded(as_dtype, "float") if asked.types is None else {name: _encoded(as_dtype, name) for name in asked.types}
    reply = {
        "id": request_id,
        "texts": asked.request.texts,
        "embeddings": embeddings,
        "meta": meta,
        "response_type": "embeddings_floats" if asked.types is None else "embeddings_by_type",
    }
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)


def _encoded(as_dtype: Callable[[OutputDtype], NDArray[Any]], kind: EmbeddingType) -> NDArray[Any] | list[str]:
    if kind != "base64":
        return np.ascontiguousarray(as_dtype(kind))
    return [base64.b64encode(row.data).decode() for row in np.ascontiguousarray(as_dtype("float"), dtype="<f4")]
