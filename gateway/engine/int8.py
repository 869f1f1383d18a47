"""The 8-bit precisions: which models and machines they are for. Reading it imports no library."""

import platform
import re
from pathlib import Path

from gateway.embedding.embedder import ModelKind
from gateway.errors import ConfigurationError

INT8, INT8_FAST = PRECISIONS = ("int8", "int8-fast")
CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = re.compile(r"\b(avx512_vnni|avx_vnni|amx_int8|i8mm)\b")
SLOW = "this CPU has neither VNNI nor AMX, so int8 gains little or nothing"


def is_int8(precision: str) -> bool:
    return precision in PRECISIONS


def multiplies_int8(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the CPU multiplies 8-bit numbers faster than others. True where the system does not say."""
    try:
        return INSTRUCTIONS.search(cpuinfo.read_text(encoding="utf-8")) is not None
    except OSError:
        return platform.system() != "Linux"


def refuse_int8_of(kind: ModelKind, precision: str) -> None:
    """Raises ConfigurationError, naming the setting, for a kind of model whose loss in 8 bits was not measured."""
    if is_int8(precision) and kind != "embedder":
        name = kind.replace("_", " ")
        raise ConfigurationError(
            f"precision = '{precision}': it is for embedders on the CPU, and this model is a {name}: remove it"
        )
