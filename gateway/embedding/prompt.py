"""Which of a model's prompts a request means: `input_type`, in the words that clients have for it, and a free `instruction`.

The reference is sentence-transformers' `encode_query` and `encode_document`: a text gets the prompt that its purpose names, and on
a model with routes (Router) the route. What a model has not is refused by name, so that no text is embedded without the prompt
that its client believes is there.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

from gateway.config import Task
from gateway.embedding.embedder import Description
from gateway.errors import InvalidValue

# The words for one purpose, in the order in which a model's prompts are looked through: `encode_document`'s own three, then
# Cohere's and NVIDIA's (search_query, search_document, passage) and Jina's.
QUERY_WORDS = ("query", "search_query", "retrieval.query")
DOCUMENT_WORDS = ("document", "passage", "corpus", "search_document", "retrieval.passage")
TASKS: dict[str, Task] = {**dict.fromkeys(QUERY_WORDS, "query"), **dict.fromkeys(DOCUMENT_WORDS, "document")}
WORDS: dict[Task, tuple[str, ...]] = {"query": QUERY_WORDS, "document": DOCUMENT_WORDS}

INSTRUCTION = "{instruction}"
# Qwen3-Embedding's documented form, e5-instruct's and SFR's: the query prompt itself shows where an instruction stands.
INSTRUCTED_QUERY = re.compile(r"Instruct: (?P<instruction>.+?)(?P<rest>\n ?Query: ?)", re.DOTALL)


def first_of(words: Iterable[str], names: Iterable[str]) -> str | None:
    known = set(names)
    return next((word for word in words if word in known), None)


def resolve_input_type(asked: str | None, about: Description, *, param: str = "input_type") -> str | None:
    """The name of the prompt that `asked` means on this model, or of the purpose where no prompt is put before such texts.

    None stays None: the model's default prompt. Raises InvalidValue naming those there are.
    """
    if asked is None or asked in about.prompts:
        return asked
    task = TASKS.get(asked)
    if task is None or (about.tasks and task not in about.tasks):
        raise unknown(asked, about, param)
    found = first_of(WORDS[task], about.prompts)
    if found is not None:
        return found
    # `encode_document` adds nothing on a model that has a prompt for queries alone; without any prompt neither does `encode_query`.
    has_query_alone = task == "document" and first_of(QUERY_WORDS, about.prompts) is not None
    if about.tasks or not about.prompts or has_query_alone:
        return task
    raise unknown(asked, about, param)


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
    """The name of the prompt that an instruction stands in. Raises InvalidValue where the model takes none for such texts."""
    if instruction is None:
        return input_type
    if not about.takes_instruction:
        raise InvalidValue("Invalid value for 'instruction': this model takes no instruction.", param="instruction")
    if input_type is not None and TASKS.get(input_type) != "query":
        raise InvalidValue(
            f"Invalid value for 'instruction': it is for queries, and 'input_type' says '{input_type}'.", param="instruction"
        )
    return first_of(QUERY_WORDS, about.prompts) or "query"


def instruction_format_of(prompts: Mapping[str, str]) -> str | None:
    """The query prompt with `{instruction}` where its own instruction stands; None where it has no such place."""
    name = first_of(QUERY_WORDS, prompts)
    shape = INSTRUCTED_QUERY.fullmatch(prompts[name]) if name else None
    return f"Instruct: {INSTRUCTION}{shape['rest']}" if shape else None


def prompt_header(asked: str | None, name: str | None, about: Description) -> dict[str, str]:
    """`x-gateway-prompt`, where a request asked for one: whose text was put before the inputs, or "none"."""
    if asked is None or name is None:
        return {}
    return {"x-gateway-prompt": header_value(name) if name in about.prompts else "none"}


def header_value(name: str) -> str:
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in name)


def printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:64])
