"""Strict loading of a reranker through sentence-transformers' CrossEncoder, as `checkpoint` loads embedders.

It also finds out which inputs CrossEncoder gives its network: whether it reads token types, and which text a chat template makes of
a pair. The pairs that the gateway makes are then compared with CrossEncoder's, token by token.
"""

import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.modules import Transformer

from gateway.config import Task
from gateway.engine.checkpoint import (
    FED,
    HEADS,
    POOLER,
    loading_reports,
    refuse_beyond_tables,
    refuse_incomplete,
    refuse_not_finite,
    unsupported_error,
)
from gateway.engine.encoder import NetworkInfo, Window
from gateway.engine.fidelity import FAILURES, MIN_CLOSENESS_FLOAT32, PROBE_PAIRS, closeness
from gateway.engine.pairs import pair_tokenizer
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import OperatorError

MARKS = {name: f"Qz7{name}7zQ" for name in ("instruction", *get_args(Task))}  # texts that a template passes on as they are
# Arguments of `predict` that are no variables of the template.
NOT_RENDERED = {"restore_suffix", "padding", "truncation", "max_length", "return_tensors"}
LONG = "The capital of France is Paris, and it has been so for a thousand years. "


def read_reranker(folder: Path, device: torch.device, dtype: torch.dtype, *, trusts_code: bool = False) -> CrossEncoder:
    """Loads the whole model in `folder`, in `dtype` from the start.

    Raises OperatorError if it cannot be loaded, or only with a warning of transformers: a head of random numbers among them.
    """
    try:
        return _load_checked(folder, device, dtype, trusts_code=trusts_code)
    except OperatorError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise OperatorError(f"the model in {folder} cannot be loaded: {reason}") from error


def _load_checked(folder: Path, device: torch.device, dtype: torch.dtype, *, trusts_code: bool) -> CrossEncoder:
    with loading_reports() as reports:
        model: CrossEncoder = CrossEncoder(
            str(folder), device=str(device), local_files_only=True, trust_remote_code=trusts_code, model_kwargs={"dtype": dtype}
        )
    for report in reports:  # what the network lacks is its head; what is left over may be another's
        refuse_incomplete(folder, report, may_lack=[], may_have=[*HEADS, POOLER])
    refuse_not_finite(folder, model)
    transformer = model[0]
    if not isinstance(transformer, Transformer):
        raise unsupported_error(folder, f"its first module, {type(transformer).__name__}, reads no texts")
    if not hasattr(model.tokenizer, "backend_tokenizer"):
        raise unsupported_error(folder, f"its tokenizer cannot be run apart from it, a {type(model.tokenizer).__name__}")
    methods = {(params["method"], str(params["method_output_name"])) for params in transformer.modality_config.values()}
    if methods != {("forward", "logits")}:
        raise unsupported_error(folder, f"it gives {', '.join(sorted(output for _, output in methods))} where logits belong")
    refuse_beyond_tables(folder, transformer)
    if dtype == torch.float32:
        model.float()  # also casts modules that ignore `dtype`
    return model


def network_of(folder: Path, model: CrossEncoder) -> NetworkInfo:
    """The properties of a loaded reranker. Raises OperatorError if it takes inputs that a Window does not have."""
    pair_format, instruction = _pair_format_of(folder, model)
    prompts = {name: text for name, text in model.prompts.items() if text}
    transformer: Any = model[0]
    takes_types = "token_type_ids" in inspect.signature(transformer.model.forward).parameters
    # DeBERTa takes them, and most often has no table of them.
    has_types = getattr(transformer.model.config, "type_vocab_size", 2) > 1
    features = model.preprocess([PROBE_PAIRS[0]])
    types = features.get("token_type_ids")
    network = NetworkInfo(
        kind="reranker",
        dimensions=1,
        max_tokens=int(model.max_seq_length or model.tokenizer.model_max_length),
        pad_id=int(model.tokenizer.pad_token_id or 0),
        prompts=prompts,
        default_prompt=instruction,
        is_normalized=False,
        reads_token_types=types is not None and bool(types.any()) and takes_types and has_types,
        pair_format=pair_format,
    )
    _refuse_other_pairs(folder, model, network)
    return network


def _pair_format_of(folder: Path, model: CrossEncoder) -> tuple[tuple[str, ...], str]:
    """NetworkInfo's `pair_format`, and the default instruction. Without a chat template: (), and the default prompt."""
    default: str = model.prompts.get(model.default_prompt_name or "") or ""
    transformer: Any = model[0]
    if "message" not in transformer.modality_config:
        return (), default
    bare = _render(model, default)
    instructed = _render(model, MARKS["instruction"])
    before, mark, after = instructed.partition(MARKS["instruction"])
    has_place = bool(mark) and bare.startswith(before) and bare.endswith(after) and len(bare) >= len(before) + len(after)
    text = instructed if has_place else bare
    own = bare[len(before) : len(bare) - len(after)] if has_place else ""
    names = sorted((name for name in MARKS if MARKS[name] in text), key=lambda name: text.index(MARKS[name]))
    if any(text.count(mark) > 1 for mark in MARKS.values()) or names[-2:] != list(get_args(Task)):
        raise unsupported_error(folder, "its chat template does not have a query once and then a document once")
    parts: list[str] = []
    for name in names:
        part, _, text = text.partition(MARKS[name])
        parts += [part, name]
    return (*parts, text), own


def _render(model: CrossEncoder, instruction: str) -> str:
    """The text that the model's chat template makes of a pair of MARKS. Without an instruction, of its own."""
    transformer: Any = model[0]
    made = transformer.input_formatter.batch_to_message("text", {"text": [(MARKS["query"], MARKS["document"])]})
    messages = made[1]["message"]
    if instruction:
        messages = transformer.input_formatter.prepend_prompt_to_messages(messages, instruction)
    options = transformer.processing_kwargs.get("chat_template", {})
    variables = {name: value for name, value in options.items() if name not in NOT_RENDERED}
    return str(transformer.processor.apply_chat_template(messages[0], tokenize=False, **variables))


def _refuse_other_pairs(folder: Path, model: CrossEncoder, network: NetworkInfo) -> None:
    """Tokenises pairs both ways. Raises OperatorError if CrossEncoder feeds other tokens, or other types, than the gateway does."""
    pairs = pair_tokenizer(network, Tokenizer(model.tokenizer.backend_tokenizer.to_str()))
    room = network.max_tokens - len(pairs.question("", network.default_prompt).head) - len(pairs.suffix)
    if room < 1:
        raise unsupported_error(folder, f"it reads {network.max_tokens} tokens, which leaves none for a query and a document")
    long = LONG * (network.max_tokens // len(LONG.split()) + 1) if network.max_tokens <= 1 << 16 else LONG
    prompt = model.prompts.get(model.default_prompt_name or "")
    for query, document in (*PROBE_PAIRS, ("a", long), (LONG, long)):
        features = model.preprocess([(query, document)], prompt=prompt)
        unknown = set(features) - FED - {"logits_to_keep"}
        if unknown or not bool(features["attention_mask"].all()):
            raise unsupported_error(folder, f"its tokenizer gives {', '.join(sorted(unknown)) or 'a mask'} with single pairs")
        [[pair]] = pairs.pairs(pairs.question(query, network.default_prompt), [document], threading.Event())
        window = pairs.cut(pair, network.max_tokens)
        if features["input_ids"][0].tolist() != window.token_ids:
            raise unsupported_error(folder, "CrossEncoder gives a pair other tokens than its tokenizer says, or cuts elsewhere")
        types = [0] * window.num_query_tokens + [1] * (len(window) - window.num_query_tokens)
        if network.reads_token_types and features["token_type_ids"][0].tolist() != types:
            raise unsupported_error(folder, "its token types are other than 0 for the query and 1 for the document")


def predicted(folder: Path, model: CrossEncoder) -> NDArray[np.float32]:
    """CrossEncoder's own logits of PROBE_PAIRS, shape (n, 1), each pair alone."""
    try:
        rows = [
            model.predict([pair], activation_fn=torch.nn.Identity(), show_progress_bar=False, convert_to_tensor=True)
            for pair in PROBE_PAIRS
        ]
    except FAILURES as error:
        raise _cannot_run(folder, error) from error
    scores = torch.cat(rows).float().cpu().numpy()
    if scores.shape != (len(PROBE_PAIRS),):
        raise unsupported_error(folder, f"it gives a pair {scores.shape[-1]} numbers, where a reranker gives one score")
    return scores[:, None]


def refuse_other_scores(
    folder: Path, expected: NDArray[np.float32], embed: Callable[[list[Window]], NDArray[np.float32]], windows: list[Window]
) -> None:
    """Compares `embed` of PROBE_PAIRS' windows with what `predict` gave. Raises OperatorError if it fails or differs."""
    try:
        rows = np.concatenate([embed([window]) for window in windows])
    except FAILURES as error:
        raise _cannot_run(folder, error) from error
    worst = float(closeness(rows, expected).min())
    if worst < MIN_CLOSENESS_FLOAT32:
        raise unsupported_error(folder, f"its predict gives other scores than its modules, with a closeness of {worst:.4f}")


def _cannot_run(folder: Path, error: Exception) -> OperatorError:
    return unsupported_error(folder, f"it cannot be run: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
