"""Fields of other servers' rerank APIs. Those that change a score or the reply are honoured or refused, never ignored.

Sources: the API references of Cohere (`priority`, `relevant_spans`), Voyage and Jina (`truncation`, `top_k`,
`return_embeddings`), NVIDIA NIM (`truncate`), TEI (`truncation_direction`), vLLM (`truncate_prompt_tokens`, `truncation_side`,
`use_activation`, `activation`, `max_tokens_per_query`, `add_special_tokens`, `chat_template`) and SiliconFlow (`overlap_tokens`).
"""

from operator import attrgetter
from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.wire.foreign_fields import (
    BOOLEAN,
    COUNT,
    END,
    ERROR,
    Translate,
    cut,
    nothing,
    one_of,
    positive,
    translate_values,
    values,
)

PRIORITY = {"type": ["integer", "null"], "minimum": 0}


class ForeignRerankFields(Struct, kw_only=True):
    """The values as raw JSON from the body."""

    top_k: Annotated[Raw | UnsetType, Meta(description="Voyage's top_n.", extra_json_schema=COUNT)] = UNSET
    truncate: Annotated[
        Raw | UnsetType,
        Meta(
            description="TEI's and NIM's long_input: true and END are end, false and NONE are error.",
            extra_json_schema=values(True, False, "END", "NONE"),
        ),
    ] = UNSET
    truncation: Annotated[
        Raw | UnsetType, Meta(description="Voyage's and Jina's long_input: true is end, false is error.", extra_json_schema=BOOLEAN)
    ] = UNSET
    truncate_prompt_tokens: Annotated[
        Raw | UnsetType,
        Meta(
            description="vLLM's long_input: end, for -1 or the number of tokens that the model reads.", extra_json_schema=values(-1)
        ),
    ] = UNSET
    truncation_direction: Annotated[
        Raw | UnsetType,
        Meta(description="TEI's: long documents are cut at their end alone.", extra_json_schema=values("right", "Right")),
    ] = UNSET
    truncation_side: Annotated[
        Raw | UnsetType, Meta(description="vLLM's: long documents are cut at their end alone.", extra_json_schema=values("right"))
    ] = UNSET
    use_activation: Annotated[Raw | UnsetType, Meta(description="vLLM's: false is raw_scores.", extra_json_schema=BOOLEAN)] = UNSET
    activation: Annotated[Raw | UnsetType, Meta(description="use_activation, of older vLLM.", extra_json_schema=BOOLEAN)] = UNSET
    priority: Annotated[
        Raw | UnsetType,
        Meta(
            description="Cohere's and vLLM's: above 0, other requests go first while the model is busy.", extra_json_schema=PRIORITY
        ),
    ] = UNSET
    relevant_spans: Annotated[
        Raw | UnsetType, Meta(description="Cohere's: this server gives scores alone.", extra_json_schema=values())
    ] = UNSET
    return_embeddings: Annotated[
        Raw | UnsetType, Meta(description="Jina's: this server gives scores alone.", extra_json_schema=values(False))
    ] = UNSET
    max_tokens_per_query: Annotated[
        Raw | UnsetType, Meta(description="vLLM's: a query is never cut.", extra_json_schema=values())
    ] = UNSET
    overlap_tokens: Annotated[
        Raw | UnsetType, Meta(description="SiliconFlow's: windows overlap as the model's row says.", extra_json_schema=values())
    ] = UNSET
    add_special_tokens: Annotated[
        Raw | UnsetType, Meta(description="vLLM's: the model's special tokens are always added.", extra_json_schema=values(True))
    ] = UNSET
    chat_template: Annotated[
        Raw | UnsetType, Meta(description="vLLM's: a pair is put together as the model's files say.", extra_json_schema=values())
    ] = UNSET


def _disabled_spans(value: Any) -> dict[str, Any] | None:
    return {} if isinstance(value, dict) and value.get("mode") == "disabled" else None


def _rank_of(priority: Any) -> dict[str, Any] | None:
    return {"is_background": priority > 0} if type(priority) is int and priority >= 0 else None


SCORES_ALONE = "this server gives scores alone."
RIGHT_ALONE = "long documents are cut at their end alone ('right')."
ACTIVATION: tuple[Translate, str] = one_of({True: {"raw_scores": False}, False: {"raw_scores": True}}), "expected a boolean."

FIELDS: dict[str, tuple[Translate, str]] = {
    "top_k": (positive("top_n"), "expected a positive integer."),
    "truncate": (
        one_of({True: END, False: ERROR, "END": END, "NONE": ERROR}),
        "supported are true, false, 'END' and 'NONE': long documents are cut at their end, or refused.",
    ),
    "truncation": (one_of({True: END, False: ERROR}), "expected a boolean."),
    "truncate_prompt_tokens": (cut, "expected a positive integer, or -1 for as many tokens as the model reads."),
    "truncation_direction": (one_of({"right": {}, "Right": {}}), RIGHT_ALONE),
    "truncation_side": (one_of({"right": {}}), RIGHT_ALONE),
    "use_activation": ACTIVATION,
    "activation": ACTIVATION,
    "priority": (_rank_of, "expected an integer of 0 or more."),
    "relevant_spans": (_disabled_spans, SCORES_ALONE),
    "return_embeddings": (one_of({False: {}}), SCORES_ALONE),
    "max_tokens_per_query": (nothing, "a query is never cut."),
    "overlap_tokens": (nothing, "windows of a long document overlap as the model's row says."),
    "add_special_tokens": (one_of({True: {}}), "this server always adds the model's special tokens."),
    "chat_template": (nothing, "a query and a document are put together as the model's files say."),
}

sent_values = attrgetter(*FIELDS)
NOTHING_SENT = sent_values(ForeignRerankFields())


def translate(body: ForeignRerankFields) -> dict[str, tuple[str, Any]]:
    """Translates foreign fields to ours, as `foreign_fields.translate` does. Raises InvalidValue."""
    sent = sent_values(body)
    return {} if sent == NOTHING_SENT else translate_values(FIELDS, sent)
