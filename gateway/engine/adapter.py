"""LoRA adapters (Hu et al. 2021, arXiv:2106.09685) that are saved beside their base model's name, as peft does.

Only the files are read here, without torch. `adapter_merge` adds an adapter to its base before the model is loaded.
"""

from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import OperatorError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Options of peft that make something else of the two matrices, or of other tensors than theirs.
NOT_FOLLOWED = (
    "use_dora", "modules_to_save", "alpha_pattern", "layer_replication", "trainable_token_indices", "target_parameters",
    "lora_bias", "fan_in_fan_out", "alora_invocation_tokens", "use_qalora", "megatron_config",
)  # fmt: skip


def is_adapter(part: Path) -> bool:
    return (part / CONFIG).is_file()


def adapter_of(part: Path) -> dict[str, Any]:
    """The content of adapter_config.json; {} for a folder without an adapter."""
    path = part / CONFIG
    if not is_adapter(part):
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise OperatorError(f"the file {path} cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError:
        raise OperatorError(f"the file {path} cannot be read as JSON") from None


def reason_against(part: Path) -> str:
    """Why the adapter is not served; "" if it is, or there is none."""
    if not is_adapter(part):
        return ""
    config = adapter_of(part)
    asked = [name for name in NOT_FOLLOWED if config.get(name)]
    if config.get("peft_type") != "LORA":
        return f"it is of the type {config.get('peft_type')}, where only LORA is known"
    if asked or config.get("bias", "none") != "none":
        return f"it asks for {' and '.join(asked or ['bias'])}"
    if not (part / WEIGHTS).is_file():
        return f"there is no {WEIGHTS} in it"
    if _base_of(part, config) is None:
        return f"its base model, {config.get('base_model_name_or_path')}, is not on this machine"
    return ""


def base_of(part: Path) -> Path | None:
    """The folder of the base model; None without an adapter, or if the base is not on this machine."""
    config = adapter_of(part)
    return _base_of(part, config) if config else None


def _base_of(part: Path, config: dict[str, Any]) -> Path | None:
    name = str(config.get("base_model_name_or_path") or "")
    if not name:
        return None
    for folder in (Path(name).expanduser(), part / name):
        if folder.is_dir():
            return folder if (folder / "config.json").is_file() else None
    try:
        import huggingface_hub  # noqa: PLC0415 - half a second, which only an adapter of a model in the hub's cache needs

        folder = Path(huggingface_hub.snapshot_download(name, revision=config.get("revision"), local_files_only=True))
    except (ModuleNotFoundError, OSError, ValueError):  # huggingface_hub's LocalEntryNotFoundError is both of the last two
        return None
    return folder if (folder / "config.json").is_file() else None
