"""Resolves which of a model's prompts a request means: by `input_type`, with its synonyms, and by a free `instruction`.

The reference is sentence-transformers' `encode_query` and `encode_document`: a text gets the prompt that its purpose names, and on
a model with routes (Router) the route. A prompt that the model lacks is refused by name, so that no text is embedded without the
prompt that its client expects.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

from gateway.config import Task
from gateway.embedding.embedder import Description
from gateway.errors import InvalidValue

# Synonyms of each purpose, in the order in which they are looked up in a model's prompts: `encode_document`'s own three, then
# Cohere's and NVIDIA's (search_query, search_document, passage) and Jina's.
QUERY_WORDS = ("query", "search_query", "retrieval.query")
DOCUMENT_WORDS = ("document", "passage", "corpus", "search_document", "retrieval.passage")
TASKS: dict[str, Task] = {**dict.fromkeys(QUERY_WORDS, "query"), **dict.fromkeys(DOCUMENT_WORDS, "document")}
WORDS: dict[Task, tuple[str, ...]] = {"query": QUERY_WORDS, "document": DOCUMENT_WORDS}

INSTRUCTION = "{instruction}"
NO_PROMPTS = "no prompts were found in the Sentence Transformers configuration"  # TEI's words
# The documented form of Qwen3-Embedding, e5-instruct and SFR: the query prompt itself shows where the instruction goes.
INSTRUCTED_QUERY = re.compile(r"Instruct: (?P<instruction>.+?)(?P<rest>\n ?Query: ?)", re.DOTALL)


def _first_of(words: Iterable[str], names: Iterable[str]) -> str | None:
    known = set(names)
    return next((word for word in words if word in known), None)


def resolve_input_type(asked: str | None, about: Description, *, param: str = "input_type") -> str | None:
    """The name of the prompt that `asked` means on this model, or of the purpose if such texts get no prompt.

    None, for the model's default prompt, gives None. Raises InvalidValue, naming the model's prompts, if it has no such prompt.
    """
    if asked is None or asked in about.prompts:
        return asked
    task = TASKS.get(asked)
    if task is None or (about.tasks and task not in about.tasks):
        raise unknown(asked, about, param)
    found = _first_of(WORDS[task], about.prompts)
    if found is not None:
        return found
    # `encode_document` adds nothing if the model only has a prompt for queries; `encode_query` adds nothing if it has no prompts.
    has_query_alone = task == "document" and _first_of(QUERY_WORDS, about.prompts) is not None
    if about.tasks or not about.prompts or has_query_alone:
        return task
    raise unknown(asked, about, param)


def resolve_purpose(asked: str | None, about: Description) -> str | None:
    """As `resolve_input_type`, for a purpose that many models have no prompt for: its texts then get none.

    The prompt's name may be in another case: nomic-embed-text-v2-moe calls its own Classification and Clustering.
    """
    if asked is None:
        return None
    return next((name for name in about.prompts if name.casefold() == asked.casefold()), asked)


def resolve_own_name(asked: str | None, about: Description) -> str | None:
    """The prompt of exactly this name, as text-embeddings-inference takes it: without synonyms. Raises InvalidValue."""
    if asked is None or asked in about.prompts:
        return asked
    name, known = printable(asked), ", ".join(map(repr, about.prompts))
    lacks = f"it was not found in the Sentence Transformers prompts. Available prompts: {known}" if known else NO_PROMPTS
    raise InvalidValue(f"`default-prompt-name` is set to `{name}` but {lacks}", param="input_type")


def accepted_input_types(about: Description) -> list[str]:
    """Every value of `input_type` that the model takes."""
    names = []
    for name in dict.fromkeys((*about.prompts, *QUERY_WORDS, *DOCUMENT_WORDS)):
        with suppress(InvalidValue):
            resolve_input_type(name, about)
            names.append(name)
    return names


def unknown(asked: str, about: Description, param: str) -> InvalidValue:
    names = [*about.prompts, *(task for task in about.tasks if task not in about.prompts)]
    if not names:
        known = "it has none, and only 'query' and 'document' (which add nothing) pass."
    else:
        known = f"it has {', '.join(repr(name) for name in names)}."
    return InvalidValue(f"Invalid value for '{param}': this model has no prompt '{printable(asked)}'; {known}", param=param)


def resolve_instruction(instruction: str | None, input_type: str | None, about: Description) -> str | None:
    """The name of the prompt that the instruction goes into. Raises InvalidValue if the model takes none for such texts."""
    if instruction is None:
        return input_type
    if not about.takes_instruction:
        raise InvalidValue("Invalid value for 'instruction': this model takes no instruction.", param="instruction")
    if input_type is not None and TASKS.get(input_type) != "query":
        raise InvalidValue(
            f"Invalid value for 'instruction': it is for queries, and the request asks for '{input_type}'.", param="instruction"
        )
    return _first_of(QUERY_WORDS, about.prompts) or "query"


def instruction_format_of(prompts: Mapping[str, str]) -> str | None:
    """The query prompt with `{instruction}` in place of its own instruction; None if it contains none."""
    name = _first_of(QUERY_WORDS, prompts)
    shape = INSTRUCTED_QUERY.fullmatch(prompts[name]) if name else None
    return f"Instruct: {INSTRUCTION}{shape['rest']}" if shape else None


def prompt_header(name: str | None, about: Description) -> dict[str, str]:
    """`x-gateway-prompt` of a request that asked for a prompt: the name of the one put before the inputs, or "none"."""
    if name is None:
        return {}
    return {"x-gateway-prompt": _header_value(name) if name in about.prompts else "none"}


def _header_value(name: str) -> str:
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in name)


def printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:64])
