"""What can become of a model's folder: a field changed, a tensor taken out, a file swapped with another model's."""

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"

# Values that mean something somewhere, for fields that are there and for some that are not.
STRINGS = [
    "gelu", "relu", "silu", "tanh", "cls", "mean", "max", "lasttoken", "weightedmean", "left", "right", "query", "", "nonsense",
    "float16", "bfloat16", "[UNK]", "eager", "BertTokenizer", "RobertaTokenizer", "bert", "roberta", "relative_key",
    "sentence_transformers.models.Pooling", "sentence_transformers.models.Normalize", "torch.nn.modules.linear.Identity",
]  # fmt: skip
ADDED: dict[str, dict[str, list[object]]] = {
    "config.json": {
        "hidden_act": ["relu"], "is_decoder": [True], "position_embedding_type": ["relative_key"], "add_cross_attention": [True],
        "auto_map": [{"AutoModel": "modeling.Own"}], "quantization_config": [{"quant_method": "bitsandbytes"}],
        "architectures": [["BertForMaskedLM"], ["XForSequenceClassification"]], "layer_norm_eps": [0.1], "dtype": ["float16"],
        "num_hidden_layers": [1, 3], "output_hidden_states": [True], "chunk_size_feed_forward": [2], "local_attention": [4],
        "rope_parameters": [{"rope_type": "default", "rope_theta": 3.0}], "sliding_window": [2], "is_causal": [False], "tie": [1],
    },
    "sentence_bert_config.json": {
        "max_seq_length": [3, 7, 1000], "do_lower_case": [True], "processing_kwargs": [{"text": {"add_special_tokens": False}}],
        "transformer_task": ["fill-mask", "sequence-classification"], "model_args": [{"dtype": "float16"}, {"variant": "x"}],
        "modality_config": [{"text": {"method": "forward", "method_output_name": "pooler_output"}}], "query_length": [4],
        "unpad_inputs": [False], "tokenizer_args": [{"do_lower_case": False}], "config_args": [{"hidden_act": "relu"}],
    },
    "config_sentence_transformers.json": {
        "truncate_dim": [8, 99, 0], "default_prompt_name": ["query", "nowhere"], "prompts": [{"query": "ask: "}],
        "model_type": ["CrossEncoder", "SparseEncoder"], "similarity_fn_name": ["dot"], "query_prefix": ["[Q] "],
    },
    "tokenizer_config.json": {
        "do_lower_case": [False, True], "truncation_side": ["left"], "padding_side": ["left"], "add_prefix_space": [True],
        "model_max_length": [5, 1000], "chat_template": ["{{ messages }}"], "tokenizer_class": ["BertTokenizer", "X"],
        "model_input_names": [["input_ids", "token_type_ids", "attention_mask"], ["input_ids"]], "strip_accents": [False],
        "auto_map": [{"AutoTokenizer": ["own.Own", None]}], "split_special_tokens": [True],
    },
    "1_Pooling/config.json": {
        "include_prompt": [False], "pooling_mode": ["max", ["cls", "mean"]], "pooling_mode_cls_token": [True],
    },
    "adapter_config.json": {"peft_type": ["LORA"], "base_model_name_or_path": ["a/b"]},
    "special_tokens_map.json": {"unk_token": ["[MASK]"], "pad_token": ["[SEP]"]},
    "added_tokens.json": {"hello": [7], "world": [10_000]},
}  # fmt: skip


@dataclass(frozen=True)
class Bases:
    """The originals, by name."""

    folders: dict[str, Path]

    def other(self, chance: random.Random, name: str) -> Path:
        return self.folders[chance.choice([each for each in self.folders if each != name])]


@dataclass(frozen=True)
class Mutant:
    """`is_harmless` says that it may not be refused."""

    base: str
    what: str
    folder: Path
    is_harmless: bool = False


Change = Callable[[random.Random, Path, Path], str]  # of a folder, with another one at hand; tells what it did


def leaves(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    items: Iterator[tuple[object, object]] = iter(())
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    for name, inner in items:
        yield (*path, name)
        yield from leaves(inner, (*path, name))


def another(chance: random.Random, value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice([value + 1, value - 1, 2 * value, value // 2, 0, -1, 1])
    if isinstance(value, float):
        return chance.choice([value * 10, value / 10, 0.0, -value, 1e9])
    return chance.choice([*STRINGS, None, 3, True])


def json_file(chance: random.Random, folder: Path) -> Path:
    """Any of them, the small ones of the configuration more often than a vocabulary."""
    files = sorted(path for path in folder.rglob("*.json") if path.stat().st_size > 2)
    return chance.choice(files)


def field(chance: random.Random, folder: Path, _: Path) -> str:
    path = json_file(chance, folder)
    content = json.loads(path.read_text())
    where = chance.choice(list(leaves(content)))
    holder = content
    for step in where[:-1]:
        holder = holder[step]
    is_removed = chance.random() < 0.25
    if is_removed:
        del holder[where[-1]]
    else:
        holder[where[-1]] = another(chance, holder[where[-1]])
    path.write_text(json.dumps(content))
    return f"{path.relative_to(folder)}: {where} {'removed' if is_removed else f'is {holder[where[-1]]!r}'}"


def added(chance: random.Random, folder: Path, _: Path) -> str:
    name = chance.choice(list(ADDED))
    path = folder / name
    content = json.loads(path.read_text()) if path.is_file() else {}
    key = chance.choice(list(ADDED[name]))
    content[key] = chance.choice(ADDED[name][key])
    path.write_text(json.dumps(content))
    return f"{name}: {key} is set to {content[key]!r}"


def tensors(chance: random.Random, folder: Path, _: Path) -> str:
    path = chance.choice(sorted(folder.rglob(WEIGHTS)))
    held = load_file(path)
    name = chance.choice(sorted(held))
    tensor = held.pop(name)
    how = chance.choice(list(TENSORS))
    TENSORS[how](held, name, tensor)
    save_file({each: value.contiguous() for each, value in held.items()}, path, metadata={"format": "pt"})
    return f"{path.relative_to(folder)}: {name} {how}"


def set_to(name: str, value: torch.Tensor, held: dict[str, torch.Tensor]) -> None:
    held[name] = value


def swapped(held: dict[str, torch.Tensor], name: str, tensor: torch.Tensor) -> None:
    alike = sorted(other for other, value in held.items() if value.shape == tensor.shape)
    held[name] = held[alike[0]].clone() if alike else tensor
    if alike:
        held[alike[0]] = tensor


TENSORS: dict[str, Callable[[dict[str, torch.Tensor], str, torch.Tensor], None]] = {
    "removed": lambda *_: None,
    "renamed": lambda held, name, tensor: set_to(f"{name}_", tensor, held),
    "under another prefix": lambda held, name, tensor: set_to(f"model.{name}", tensor, held),
    "cut": lambda held, name, tensor: set_to(name, tensor[: max(1, len(tensor) // 2)].clone(), held),
    "turned": lambda held, name, tensor: set_to(name, tensor.T.clone() if tensor.ndim == 2 else tensor.flip(0), held),
    "zeroed": lambda held, name, tensor: set_to(name, torch.zeros_like(tensor), held),
    "negated": lambda held, name, tensor: set_to(name, -tensor, held),
    "not a number": lambda held, name, tensor: set_to(name, torch.full_like(tensor, float("nan")), held),
    "in half precision": lambda held, name, tensor: set_to(name, tensor.half(), held),
    "as integers": lambda held, name, tensor: set_to(name, tensor.to(torch.int8), held),
    "swapped": swapped,
    "doubled": lambda held, name, tensor: held.update({name: tensor, f"encoder.{name}": tensor.clone()}),
}


def a_file(chance: random.Random, folder: Path, other: Path) -> str:
    path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    name = path.relative_to(folder)
    how = chance.choice(["removed", "cut", "emptied", "another model's", "another's or removed"])
    if how == "removed" or (how == "another's or removed" and not (other / name).is_file()):
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "emptied":
        path.write_bytes(b"")
    elif (other / name).is_file():
        shutil.copy(other / name, path)
    return f"{name}: {how} ({other.name})"


def sharded(chance: random.Random, folder: Path, other: Path) -> str:
    held = load_file(folder / WEIGHTS)
    names = sorted(held)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: held[name] for name in part}, folder / file, metadata={"format": "pt"})
    (folder / WEIGHTS).unlink()
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    how = chance.choice(["whole", "without a shard", "with an entry too few", "swapped shards"])
    if how == "without a shard":
        (folder / chance.choice(list(parts))).unlink()
    elif how == "with an entry too few":
        del index["weight_map"][chance.choice(names)]
    elif how == "swapped shards":
        first, second = (folder / name for name in parts)
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    return f"sharded, {how}"


def as_pickle(chance: random.Random, folder: Path, other: Path) -> str:
    held = load_file(folder / WEIGHTS)
    how = chance.choice(["instead", "beside, with other numbers", "with a tensor too few"])
    if how == "beside, with other numbers":
        held = {name: tensor + 1 for name, tensor in held.items()}
    else:
        (folder / WEIGHTS).unlink()
    if how == "with a tensor too few":
        del held[chance.choice(sorted(held))]
    torch.save(held, folder / "pytorch_model.bin")
    return f"pytorch_model.bin {how}"


def bare(chance: random.Random, folder: Path, other: Path) -> str:
    for path in [*folder.glob("*/*"), folder / "modules.json"]:
        path.unlink()
    return "without modules.json"


def harmless(chance: random.Random, folder: Path, other: Path) -> str:
    how = chance.choice(["times", "order of keys", "white space", "unrelated files", "README", "nothing"])
    if how == "times":
        for path in folder.rglob("*"):
            os.utime(path, (chance.randrange(10**9), chance.randrange(10**9)))
    elif how in {"order of keys", "white space"}:
        for path in folder.rglob("*.json"):
            content = json.loads(path.read_text())
            turned = dict(reversed(content.items())) if isinstance(content, dict) and how == "order of keys" else content
            path.write_text(json.dumps(turned, indent=chance.randrange(9)))
    elif how != "nothing":
        for name in ("README.md",) if how == "README" else ("notes.txt", "training_args.bin", "onnx/model.onnx", "results.json"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(f"# {chance.random()}")
    return f"harmless: {how}"


CHANGES: dict[Change, int] = {field: 34, added: 24, tensors: 18, a_file: 10, sharded: 3, as_pickle: 3, bare: 2, harmless: 6}


def mutant(bases: Bases, seed: int, under: Path, *, only: Change | None = None) -> Mutant:
    """A copy of one of the originals under a folder, with one change, or two."""
    chance = random.Random(seed)
    name = chance.choice(list(bases.folders))
    folder = shutil.copytree(bases.folders[name], under / f"{seed}")
    chosen = [only] if only else chance.choices(list(CHANGES), list(CHANGES.values()), k=1)
    if chosen != [harmless] and chance.random() < 0.15:
        chosen.append(chance.choice([field, added, tensors]))
    told = []
    for change in chosen:
        with contextlib.suppress(OSError, ValueError, IndexError):  # the first change left the second nothing
            told.append(change(chance, folder, bases.other(chance, name)))
    return Mutant(name, " + ".join(told), folder, chosen == [harmless])
