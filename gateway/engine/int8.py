"""The 8-bit precisions: which models and machines they are for. Reading it imports no library."""

import platform
from pathlib import Path

from gateway.cpus import ROOT, cpu_flags
from gateway.embedding.embedder import ModelKind
from gateway.errors import ConfigurationError

INT8, INT8_FAST = PRECISIONS = ("int8", "int8-fast")
INSTRUCTIONS = {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"}
SLOW = "this CPU has neither VNNI nor AMX, so int8 gains little or nothing"


def is_int8(precision: str) -> bool:
    return precision in PRECISIONS


def multiplies_int8(root: Path = ROOT) -> bool:
    """Whether the CPU multiplies 8-bit numbers faster than others. True on a system that does not say."""
    return not INSTRUCTIONS.isdisjoint(cpu_flags(root)) or platform.system() != "Linux"


def refuse_int8_of(kind: ModelKind, precision: str) -> None:
    """Raises ConfigurationError, naming the setting, for a kind of model whose loss in 8 bits was not measured."""
    if is_int8(precision) and kind != "embedder":
        name = kind.replace("_", " ")
        raise ConfigurationError(
            f"precision = '{precision}': it is for embedders on the CPU, and this model is a {name}: remove it"
        )
