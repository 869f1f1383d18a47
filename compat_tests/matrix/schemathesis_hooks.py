"""What schemathesis loads before it starts: the model that is served, and a marker, go into what it makes up."""

from typing import Any

import schemathesis

from compat_tests.scorer import RERANKER
from compat_tests.texts import ALIASES, MARKER, MODEL


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A made-up name of a model would be all that is ever looked at. What is wrong in a body stays wrong."""
    wanted = case.path_parameters.get("model")
    if isinstance(wanted, str) and wanted not in {MODEL, *ALIASES}:
        case.path_parameters["model"] = MARKER + wanted
    body = case.body
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str) and body["model"]:
        body["model"] = RERANKER if is_rerank(case) else MODEL
    if case.meta is not None and case.meta.generation.mode.is_positive:
        keep_one_of_each(body)
        keep_what_the_model_has(body)
        if str(case.path).startswith("/api/"):
            keep_what_ollama_takes(body)
        if is_rerank(case):
            keep_what_fits(body)
    for name in ("input", "texts"):
        if name in body:
            body[name] = marked(body[name])
    if isinstance(body.get("user"), str):
        body["user"] = MARKER + body["user"]


def keep_what_ollama_takes(body: dict[str, Any]) -> None:
    """What depends on the model or on the texts, and a schema cannot say."""
    for name in ("options", "dimensions", "input_type"):
        body.pop(name, None)
    if isinstance(body.get("name"), str) and body["name"]:
        body["name"] = MODEL


def is_rerank(case: Any) -> bool:
    return str(case.path).endswith("/rerank")


def keep_what_fits(body: dict[str, Any]) -> None:
    """What depends on the model or on the documents, and a schema cannot say: the query leaves room for a document."""
    if isinstance(body.get("query"), str):
        body["query"] = body["query"][:8]
    for name in ("rank_fields", "max_chunks_per_doc"):
        body.pop(name, None)


# Fields that say the same, ours before those of other servers. Two may not disagree: the document does not say so, as its schemas
# would be unions of unions, which programs that write clients cannot read.
ALIKE = (
    ("long_input", "truncate", "truncation", "truncate_prompt_tokens"),
    ("dimensions", "output_dimension", "output_dimensionality"),
    ("input_type", "prompt_name", "task", "task_type", "text_type"),
    ("normalize", "normalized", "use_activation", "embd_normalize"),
    ("encoding_format", "embedding_type", "encoding_type", "embedding_types", "output_dtype", "embed_dtype"),
    ("input", "text"),
    ("top_n", "top_k"),
    ("raw_scores", "use_activation", "activation"),
    ("documents", "texts"),
)
NUM_TOKENS = 30_522  # of the model's vocabulary
WITHOUT_RANGES = {"int8": "binary", "uint8": "ubinary"}


def keep_one_of_each(body: dict[str, Any]) -> None:
    for names in ALIKE:
        said = [name for name in names if body.get(name) is not None]
        for name in said[1:]:
            del body[name]


def keep_what_the_model_has(body: dict[str, Any]) -> None:
    """A schema knows neither the vocabulary nor whether there are ranges for as many dimensions."""
    for name in ("tokens", "ids"):
        if isinstance(body.get(name), list):
            body[name] = [each % NUM_TOKENS if isinstance(each, int | float) else each for each in body[name]]
    if isinstance(types := body.get("embedding_types"), list):
        body["embedding_types"] = [WITHOUT_RANGES.get(each, each) for each in types]
    for name in ("embedding_type", "encoding_type", "embedding_types", "output_dtype"):
        if isinstance(body.get(name), str):
            body[name] = WITHOUT_RANGES.get(body[name], body[name])


def marked(given: Any) -> Any:
    """The texts in it, the empty ones aside, with the marker before each."""
    if isinstance(given, list):
        return [marked(each) for each in given]
    return MARKER + given if isinstance(given, str) and given else given
