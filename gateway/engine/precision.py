"""The precision of a model in torch, and the fallbacks for a precision whose vectors are not faithful."""

from pathlib import Path

from gateway.engine.identity import module_folders, parse_json

# By requested precision, those to try in turn until the vectors are close enough to float32's. bfloat16 has float32's range and an
# eighth of float16's resolution: it helps if values overflow.
CANDIDATES = {
    "float16": ("float16", "bfloat16", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "float32": ("float32",),
    "int8": ("int8",),  # who asks for int8 sizes a machine by it: it is served, or refused
    "int8-fast": ("int8-fast",),
}

# Model types that overflow float16's range (65,504) with their published weights. They were trained in bfloat16.
T5 = "the sums of its feed-forward layers overflow: transformers itself keeps their last matrix in float32 under float16"
GEMMA = "its residual stream overflows: transformers' documentation says bfloat16 or float32"
QWEN3 = "a few of its channels overflow in the later layers: its card and its serving engines say bfloat16"
OVERFLOWING = {
    "t5": T5,
    "mt5": T5,
    "umt5": T5,
    "longt5": T5,
    "gemma": GEMMA,
    "gemma2": GEMMA,
    "gemma3": GEMMA,
    "gemma3_text": GEMMA,
    "qwen3": QWEN3,
}


def half_precision(folder: Path) -> str:
    """The precision that "auto" means on CUDA: float16, for its finer resolution, unless the model is made for bfloat16."""
    config = _network_config(folder)
    text_config = config.get("text_config")
    inner = text_config if isinstance(text_config, dict) else {}
    for each in (config, inner):
        if each.get("model_type") in OVERFLOWING or "bfloat16" in {each.get("dtype"), each.get("torch_dtype")}:
            return "bfloat16"
    return "float16"


def _network_config(folder: Path) -> dict[str, object]:
    """The transformers configuration of a folder, or of the first of its modules that has one. Empty if there is none."""
    for part in (folder, *module_folders(folder)):
        file = part / "config.json"
        config = parse_json(file) if file.is_file() else None
        if isinstance(config, dict) and "model_type" in config:
            return config
    return {}
