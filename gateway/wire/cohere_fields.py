"""Fields of other embeddings APIs, ours among them, in a body for Cohere's paths. What would change a vector is refused by name.

Cohere's own words for the same stand in `gateway/wire/cohere.py`; a client that moved here by its URL sends only those.
"""

from operator import attrgetter
from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.wire.foreign_fields import Translate, nothing, one_of, translate_values, values

Absent = Annotated[Raw | UnsetType, Meta(description="Refused: no field of Cohere's.", extra_json_schema=values())]
Normalized = Annotated[Raw | UnsetType, Meta(description="Not Cohere's: vectors have length 1.", extra_json_schema=values(True))]


class ForeignCohereFields(Struct, kw_only=True):
    """The values as raw JSON from the body, so that refused ones cost no objects."""

    dimensions: Absent = UNSET
    output_dtype: Absent = UNSET
    embedding_type: Absent = UNSET
    encoding_format: Annotated[
        Raw | UnsetType, Meta(description="Not Cohere's: embedding_types says it.", extra_json_schema=values("float"))
    ] = UNSET
    normalize: Normalized = UNSET
    normalized: Normalized = UNSET
    long_input: Absent = UNSET
    prompt_name: Absent = UNSET
    task: Absent = UNSET
    instruction: Absent = UNSET


TYPES = "Cohere's word is 'embedding_types'."
PURPOSE = "Cohere's word is 'input_type'."
LENGTH: tuple[Translate, str] = one_of({True: {}}), "vectors have length 1 here; /v1/embeddings gives others."

FIELDS: dict[str, tuple[Translate, str]] = {
    "dimensions": (nothing, "Cohere's word is 'output_dimension'."),
    "output_dtype": (nothing, TYPES),
    "embedding_type": (nothing, TYPES),
    "encoding_format": (one_of({"float": {}}), TYPES),
    "normalize": LENGTH,
    "normalized": LENGTH,
    "long_input": (nothing, "Cohere's word is 'truncate'."),
    "prompt_name": (nothing, PURPOSE),
    "task": (nothing, PURPOSE),
    "instruction": (nothing, "/v1/embeddings takes one."),
}

sent_values = attrgetter(*FIELDS)
NOTHING_SENT = sent_values(ForeignCohereFields())


def refuse_foreign_fields(body: ForeignCohereFields) -> None:
    """Raises InvalidValue if a field that Cohere does not have asks for another vector than the reply has."""
    sent = sent_values(body)
    if sent != NOTHING_SENT:
        translate_values(FIELDS, sent)
