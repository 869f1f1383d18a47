"""Inputs that are ids of the model's own tokenizer: embedded as they stand, without special tokens around them.

Only a prompt makes text of them again, as in text-embeddings-inference: a prompt is text, and so belongs before text.
"""

import threading
from dataclasses import dataclass, replace

from gateway.config import LongInput
from gateway.embedding.embedder import Inputs, Prepared
from gateway.embedding.long_input import windows
from gateway.engine.encoder import Window
from gateway.engine.preprocessor import Preprocessor, Windows
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import InputTooLong, InvalidValue, RequestTooLong


@dataclass(frozen=True, slots=True)
class _Cut:
    """One input's token count and windows, with the weight of each."""

    num_tokens: int
    windows: list[Window]
    weights: list[int]


def prepare(preprocessor: Preprocessor, inputs: Inputs, abandoned: threading.Event) -> Prepared[Windows]:
    """Prepares inputs that are texts, token ids, or some of each.

    Raises InvalidValue for an id that is no token of the model, InputTooLong and RequestTooLong.
    """
    if inputs.token_ids is None:
        return preprocessor.prepare(inputs, abandoned)
    _refuse_unknown_ids(preprocessor.tokenizer, inputs)
    if preprocessor.prompt_of(inputs).text:
        return preprocessor.prepare(_as_texts(preprocessor.tokenizer, inputs), abandoned)
    rule = inputs.long_input or preprocessor.rule
    all_ids = inputs.token_ids
    given = [_cut(preprocessor, inputs, index, ids, rule) for index, ids in enumerate(all_ids) if ids is not None]
    total = sum(cut.num_tokens for cut in given)
    if total > preprocessor.limits.max_request_tokens:
        raise RequestTooLong(str(total), preprocessor.limits.max_request_tokens)
    texts_at = [index for index, ids in enumerate(all_ids) if ids is None]
    of_texts = _cuts_of(preprocessor.prepare(replace(inputs.only(texts_at), token_ids=None), abandoned)) if texts_at else []
    if total + sum(cut.num_tokens for cut in of_texts) > preprocessor.limits.max_request_tokens:
        raise RequestTooLong(f"more than {total}", preprocessor.limits.max_request_tokens)
    by_kind = iter(given), iter(of_texts)
    return _join(preprocessor, inputs, [next(by_kind[ids is None]) for ids in all_ids], rule)


def _refuse_unknown_ids(tokenizer: Tokenizer, inputs: Inputs) -> None:
    """Raises InvalidValue for an array that is empty, or has an id that is no token of the model."""
    for index, ids in enumerate(inputs.token_ids or []):
        if ids is None:
            continue
        if not ids:
            raise InvalidValue(f"Invalid '{inputs.where(index)}': an array of token ids must not be empty.", param=inputs.field)
        if unknown := {token_id for token_id in set(ids) if not tokenizer.has(token_id)}:
            position = next(place for place, token_id in enumerate(ids) if token_id in unknown)
            raise InvalidValue(
                f"Invalid '{inputs.where(index)}': the integer at position {position} is no token of this model, whose ids go"
                f" from 0 to {tokenizer.max_id}.",
                param=inputs.field,
            )


def _as_texts(tokenizer: Tokenizer, inputs: Inputs) -> Inputs:
    parts = zip(inputs.texts, inputs.token_ids or [], strict=True)
    return replace(inputs, texts=[text if ids is None else tokenizer.decode(ids) for text, ids in parts], token_ids=None)


def _cut(preprocessor: Preprocessor, inputs: Inputs, index: int, ids: list[int], rule: LongInput) -> _Cut:
    preprocessor.check(inputs, index, len(ids), rule)
    task = preprocessor.prompt_of(inputs).task
    slices = windows(len(ids), max_tokens=preprocessor.network.max_tokens, rule=rule)
    cut = [Window(ids[each], 0, task) for each in slices]
    return _Cut(len(ids), cut, [len(window) for window in cut])


def _cuts_of(prepared: Prepared[Windows]) -> list[_Cut]:
    cuts, start, work = [], 0, prepared.work
    for num_tokens, count in zip(prepared.token_counts, work.counts, strict=True):
        part = slice(start, start + count)
        cuts.append(_Cut(num_tokens, work.windows[part], work.weights[part]))
        start += count
    return cuts


def _join(preprocessor: Preprocessor, inputs: Inputs, cuts: list[_Cut], rule: LongInput) -> Prepared[Windows]:
    counts = [cut.num_tokens for cut in cuts]
    work = preprocessor.work_of([cut.windows for cut in cuts], [weight for cut in cuts for weight in cut.weights])
    return Prepared(inputs, counts, [count > preprocessor.network.max_tokens for count in counts], rule, work=work)


def decode(preprocessor: Preprocessor, inputs: Inputs, *, skip_special_tokens: bool) -> list[str]:
    """The texts of the inputs' token ids. Raises InvalidValue for an id that is no token, InputTooLong and RequestTooLong."""
    _refuse_unknown_ids(preprocessor.tokenizer, inputs)
    arrays, limits = [ids or [] for ids in inputs.token_ids or []], preprocessor.limits
    for index, ids in enumerate(arrays):
        if len(ids) > limits.max_input_tokens:
            raise InputTooLong(inputs.where(index), limits.max_input_tokens)
    if (total := sum(map(len, arrays))) > limits.max_request_tokens:
        raise RequestTooLong(str(total), limits.max_request_tokens)
    return [preprocessor.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens) for ids in arrays]
