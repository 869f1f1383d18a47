"""Adds a LoRA adapter to its base model: W + B A * alpha / r for each matrix, as peft's merge_and_unload.

With `use_rslora` the factor is alpha / sqrt(r). Sums are in float32.
"""

import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from gateway.engine.adapter import CONFIG, WEIGHTS, adapter_of, base_of, is_adapter
from gateway.engine.identity import weights_in
from gateway.engine.model_folder import transformer_folders
from gateway.errors import OperatorError

MATRIX = re.compile(r"^base_model\.model\.(.+)\.lora_(A|B)(?:\.default)?\.weight$")
TEXT_FILES = ("*.json", "*.txt", "*.model", "*.spm")  # of the base: its configuration and its tokenizer


@contextmanager
def merged(folder: Path) -> Iterator[Path]:
    """The folder itself, or a temporary copy of it in which each adapter is merged with its base.

    Raises OperatorError if an adapter does not fit its base.
    """
    parts = [part for part in transformer_folders(folder) if is_adapter(part)]
    if not parts:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="gateway-merged-") as name:
        copy = Path(name) / folder.name
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(WEIGHTS, CONFIG))
        for part in parts:
            _merge(part, copy / part.relative_to(folder))
        yield copy


def _merge(part: Path, into: Path) -> None:
    base = base_of(part)
    if base is None:
        raise OperatorError(f"the base model of the adapter in {part} is not on this machine")
    for pattern in TEXT_FILES:
        for path in base.glob(pattern):
            if not (into / path.name).exists() and not path.name.endswith(".index.json"):
                shutil.copy(path, into / path.name)
    tensors = {name: tensor for path in weights_in(base) for name, tensor in _tensors_of(path).items()}
    config, adapter = adapter_of(part), load_file(part / WEIGHTS)
    matrices = {name: MATRIX.match(name) for name in adapter}
    if strange := sorted(name for name, found in matrices.items() if found is None):
        raise OperatorError(f"the adapter in {part} has tensors that are no LoRA matrices: {strange[0]}")
    for module in sorted({found[1] for found in matrices.values() if found}):
        a, b = (adapter[_name_of(adapter, module, which)].float() for which in "AB")
        name = _target_of(part, module, tensors)
        factor = config.get("lora_alpha", 8) / (math.sqrt(len(a)) if config.get("use_rslora") else len(a))
        tensors[name] = tensors[name].float() + factor * (b @ a)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, into / "model.safetensors", metadata={"format": "pt"}
    )


def _tensors_of(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".bin":
        loaded: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.clone() for name, tensor in loaded.items()}  # tied tensors share memory, which safetensors refuses
    return {}


def _name_of(adapter: dict[str, torch.Tensor], path: str, which: str) -> str:
    """Raises OperatorError if the adapter has only one of the two matrices."""
    for name in (f"base_model.model.{path}.lora_{which}.weight", f"base_model.model.{path}.lora_{which}.default.weight"):
        if name in adapter:
            return name
    raise OperatorError(f"the adapter has no matrix {which} for {path}")


def _target_of(part: Path, path: str, tensors: dict[str, torch.Tensor]) -> str:
    """The base's tensor for a module of the network; either may have been saved with a prefix, such as `bert.` or `model.`."""
    wanted = f"{path}.weight"
    while wanted:
        found = [name for name in tensors if name == wanted or name.endswith(f".{wanted}")]
        if len(found) == 1:
            return found[0]
        wanted = wanted.partition(".")[2] if not found else ""
    raise OperatorError(f"the adapter in {part} is not of its base model, which has no module {path}")
