"""Strict loading through sentence-transformers: refuses defects that it passes over with a warning or in silence.

transformers fills tensors that a checkpoint lacks with random numbers, and ignores those the network has no place for. A reference
with random layers is no reference, so both are refused here by name. So are weights of NaN or infinity, tokens without a row in the
embedding table, and models that sentence-transformers feeds with other inputs than the gateway does.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Transformer
from transformers import PreTrainedModel

from gateway.engine.encoder import Window
from gateway.engine.fidelity import MIN_COSINE, cosines
from gateway.engine.fidelity import PROBES as ALL_KINDS
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.unsupported import OTHER_KIND
from gateway.errors import OperatorError

# The heads of the tasks a network was trained with. An embedder reads its last hidden state, which no head computes.
HEADS = (
    "cls", "lm_head", "mlm_head", "embed_out", "classifier", "pre_classifier", "classification_head", "score", "qa_outputs",
    "predictions", "sop_classifier", "discriminator_predictions", "generator_predictions", "generator_lm_head",
    "lm_predictions", "mask_predictions", "vocab_transform", "vocab_layer_norm", "vocab_projector", "logits_proj", "seq_summary",
    r"head\.(dense|norm)", r"decoder\.(weight|bias)$",
)  # fmt: skip
# A layer between the last hidden state and a head. It is needed only by a model that pools through it, which reads `pooler_output`.
POOLER = "pooler"
# Buffers that a network computes by itself; older releases saved them.
BUFFERS = (r"(.*\.)?position_ids$", r"(.*\.)?inv_freq$", r"(.*\.)?(attn\.)?masked_bias$", r"(.*\.)?attn\.bias$")
# Position embeddings that are a table of limited length, by the names that transformers' networks give them.
POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")
MAX_NAMED = 4
PROBES = ("a", "Hello, world", "The capital of France is Paris. " * 3, "Größe 你好 مرحبا 🙂")
FED = {"input_ids", "attention_mask", "token_type_ids", "modality", "prompt_length"}
patched = threading.Lock()  # one load at a time may patch transformers


def read(folder: Path, device: torch.device, dtype: torch.dtype, *, trusts_code: bool = False) -> SentenceTransformer:
    """Loads the whole model in `folder`, in `dtype` from the start.

    Casting it later would round tensors that must stay in float32: rotary frequencies, and T5's last matrices. Raises OperatorError
    if it cannot be loaded, or only with a warning of transformers.
    """
    try:
        return _load_checked(folder, device, dtype, trusts_code=trusts_code)
    except OperatorError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise OperatorError(f"the model in {folder} cannot be loaded: {reason}") from error


def _load_checked(folder: Path, device: torch.device, dtype: torch.dtype, *, trusts_code: bool) -> SentenceTransformer:
    with loading_reports() as reports:
        model = SentenceTransformer(
            str(folder), device=str(device), local_files_only=True, trust_remote_code=trusts_code, model_kwargs={"dtype": dtype}
        )
    pooler = [POOLER] if all(map(_ignores_pooler, model.modules())) else []
    for report in reports:
        refuse_incomplete(folder, report, may_lack=[*HEADS, *pooler], may_have=[*HEADS, *pooler])
    refuse_not_finite(folder, model)
    refuse_other_input(folder, model)
    return model.float() if dtype == torch.float32 else model  # also casts modules that ignore `dtype`


@contextmanager
def loading_reports() -> Iterator[list[dict[str, Any]]]:
    """Collects transformers' `output_loading_info` for each network loaded inside, which sentence-transformers drops."""
    reports: list[dict[str, Any]] = []
    owner: Any = PreTrainedModel
    original = vars(owner)["from_pretrained"]

    def from_pretrained(cls: type[PreTrainedModel], *arguments: Any, **options: Any) -> Any:
        # Sizes that do not match are then in the report; the error of transformers would not name them.
        reporting = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, report = original.__get__(None, cls)(*arguments, **{**options, **reporting})
        reports.append(report)
        return (model, report) if options.get("output_loading_info") else model

    with patched:
        owner.from_pretrained = classmethod(from_pretrained)
        try:
            yield reports
        finally:
            owner.from_pretrained = original


def _ignores_pooler(module: torch.nn.Module) -> bool:
    """Whether a module reads the last hidden state, and so needs no pooler."""
    modalities = getattr(module, "modality_config", {})
    return all(params["method_output_name"] == "last_hidden_state" for params in modalities.values())


def refuse_incomplete(folder: Path, report: dict[str, Any], *, may_lack: list[str], may_have: list[str]) -> None:
    """Raises OperatorError if tensors of the network are missing, left over or of another shape; its message names them.

    `may_lack` are the parts that may be missing, as nothing reads them, and `may_have` those that may be left over.
    """
    missing, extra = (
        re.compile(rf"^({'|'.join([*names, '(?!)'])})(\.|$)|^({'|'.join(BUFFERS)})") for names in (may_lack, may_have)
    )
    shapes = [f"{name} {tuple(there)} instead of {tuple(wanted)}" for name, there, wanted in report["mismatched_keys"]]
    found = {
        "missing": sorted(name for name in report["missing_keys"] if not missing.match(name)),
        "left over": sorted(name for name in report["unexpected_keys"] if not extra.match(name)),
        "of another shape": sorted(shapes),
        "not read": sorted(report.get("error_msgs", ())),
    }
    faults = [f"{_quote_names(names)} {'is' if len(names) == 1 else 'are'} {how}" for how, names in found.items() if names]
    if faults:
        raise OperatorError(
            f"the weights in {folder} are not those of its config.json: {'; '.join(faults)}. Fetch the model's files again, all of"
            " one revision, or name another model",
            category=OTHER_KIND,
        )


def _quote_names(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def refuse_not_finite(folder: Path, model: torch.nn.Module) -> None:
    names = [name for name, tensor in model.named_parameters() if not bool(torch.isfinite(tensor).all())]
    if names:
        raise OperatorError(
            f"the weights in {folder} hold numbers that are not finite, in {_quote_names(names)}: fetch the model's files again",
            category=OTHER_KIND,
        )


def refuse_other_input(folder: Path, model: SentenceTransformer | SparseEncoder) -> None:
    """Raises OperatorError if sentence-transformers feeds the network with other inputs than the gateway does."""
    for module in model.modules():  # a Router's among them
        if isinstance(module, Transformer):
            _refuse_other_modality(folder, module)
            refuse_beyond_tables(folder, module)
    if getattr(model, "tokenizer", None) is None:
        raise unsupported_error(folder, f"its first module, {type(model[0]).__name__}, reads no texts")
    if isinstance(model[0], Transformer) and hasattr(model.tokenizer, "backend_tokenizer"):
        _refuse_other_tokens(folder, model)


def _refuse_other_modality(folder: Path, transformer: Transformer) -> None:
    """Raises OperatorError for chat templates, which only sentence-transformers fills in, and for images, which processors read."""
    modalities = transformer.modality_config
    if set(modalities) != {"text"} or modalities["text"]["method"] != "forward":
        what = ", ".join(map(str, modalities)) or "nothing that sentence-transformers knows"
        raise unsupported_error(folder, f"it reads {what} through {type(transformer.processor).__name__}")


def refuse_beyond_tables(folder: Path, transformer: Transformer) -> None:
    """Raises OperatorError for tokens or positions without a row in their table: torch fails there, OpenVINO is silently wrong."""
    network: Any = transformer.model
    rows = int(network.get_input_embeddings().weight.shape[0])
    last = max(transformer.tokenizer.get_vocab().values(), default=0) if transformer.tokenizer is not None else 0
    if last >= rows:
        raise unsupported_error(folder, f"its tokenizer has tokens up to number {last}, its table of embeddings {rows} rows")
    reads = transformer.max_seq_length or 0
    for name, module in network.named_modules():
        if name.rpartition(".")[2] in POSITION_TABLES and isinstance(module, torch.nn.Embedding):
            room = module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
            if reads > room:
                raise unsupported_error(
                    folder, f"it is set to read {reads} tokens and has {room} positions: lower its max_seq_length"
                )


def _refuse_other_tokens(folder: Path, model: SentenceTransformer | SparseEncoder) -> None:
    """Tokenises a few texts both ways. Raises OperatorError if sentence-transformers feeds other tokens than the gateway does."""
    tokenizer = Tokenizer(model.tokenizer.backend_tokenizer.to_str())
    room = int(model.max_seq_length or model.tokenizer.model_max_length) - tokenizer.num_special
    if room < 1:
        raise unsupported_error(folder, f"it reads {room + tokenizer.num_special} tokens, special ones among them")
    if tokenizer.fast.get_vocab() != model.tokenizer.backend_tokenizer.get_vocab():
        raise unsupported_error(folder, "two tokens of its vocabulary have one number")  # one would be lost when it is saved
    for probe in (*PROBES, *ALL_KINDS):
        features = model.preprocess([probe])
        strange = set(features) - FED
        types = features.get("token_type_ids")
        if strange or (types is not None and bool(types.any())):
            raise unsupported_error(
                folder, f"its tokenizer gives the network {', '.join(sorted(strange)) or 'token types other than 0'}"
            )
        if "attention_mask" not in features or not bool(features["attention_mask"].all()):
            raise unsupported_error(folder, "its tokenizer masks tokens of single texts, or gives no attention mask")
        ids = tokenizer.fast.encode(probe, add_special_tokens=False).ids[:room]
        if features["input_ids"][0].tolist() != tokenizer.with_special(ids):
            raise unsupported_error(
                folder, "its tokenizer gives a text other tokens than its vocabulary file says, or cuts elsewhere"
            )


def refuse_other_vectors(
    folder: Path, model: SentenceTransformer | SparseEncoder, embed: Callable[[list[Window]], NDArray[np.float32]]
) -> None:
    """Compares `embed` with the model's own `encode`, whose code may do what no file here says.

    Skips a model that begins with a Router, as its vectors depend on the task. Raises OperatorError if `encode` fails or gives
    other vectors.
    """
    if not isinstance(model[0], Transformer):
        return
    tokenizer = Tokenizer(model.tokenizer.backend_tokenizer.to_str())
    room = int(model.max_seq_length or model.tokenizer.model_max_length) - tokenizer.num_special
    for probe in PROBES[1:]:
        ids = tokenizer.fast.encode(probe, add_special_tokens=False).ids[:room]
        try:
            rows = embed([Window(tokenizer.with_special(ids))])
            given = model.encode([probe], prompt="", show_progress_bar=False, convert_to_tensor=True)
            expected = given.to_dense().float().cpu().numpy()
        except Exception as error:
            raise unsupported_error(
                folder, f"it cannot be run: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from error
        if rows.shape != expected.shape:
            raise unsupported_error(folder, f"its encode gives {expected.shape[1]} dimensions, its modules {rows.shape[1]}")
        worst = float(cosines(rows, expected).min())
        if worst < MIN_COSINE and (rows.any() or expected.any()):  # a text may have no weight at all
            raise unsupported_error(folder, f"its encode gives other vectors than its modules, with a cosine of {worst:.4f}")


def unsupported_error(folder: Path, what: str) -> OperatorError:
    return OperatorError(f"the model in {folder} cannot be served as sentence-transformers does: {what}", category=OTHER_KIND)
