"""Puts a model into an image: `bake.py --model ID --into FOLDER`, in an environment that has torch.

FOLDER then holds `gateway.toml`, which serves the model, and `models/` with it compiled in each of `--precisions`; with `--weights`
the model's files instead, for images that compute with torch. Needs the gateway's command in PATH.
"""

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path

BUILTIN = "sentence-transformers/all-MiniLM-L6-v2"  # its row is the gateway's default, its weights an installed package's
WEIGHTS = """
import sys, shutil
from gateway.engine.weights import NOT_NEEDED, folder_of
shutil.copytree(folder_of(sys.argv[1], download=True), sys.argv[2], ignore=shutil.ignore_patterns(*NOT_NEEDED, ".cache", "onnx"))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="an id on the Hugging Face hub, or a folder")
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--precisions", default="bfloat16 float32")
    parser.add_argument("--weights", action="store_true")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    has_weights = options.model == BUILTIN or not options.weights
    source = options.model if has_weights else baked_weights(options.model, options.into)
    for precision in [] if options.weights else options.precisions.split():
        compile_model(options.model, precision, options.into / "models")
    (options.into / "gateway.toml").write_text(configuration(options.model, source), encoding="utf-8")


def baked_weights(model: str, into: Path) -> str:
    folder = into / "weights"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["python", "-c", WEIGHTS, model, str(folder)], check=True)
    return str(folder)


def compile_model(model: str, precision: str, folder: Path) -> None:
    row = {"name": model, "source": model, "precision": precision, "device": "cpu"}
    environ = {**os.environ, "GATEWAY__MODELS": json.dumps([row]), "GATEWAY__ENGINE__MODELS_DIR": str(folder.absolute())}
    subprocess.run(["gateway", "models", "build"], check=True, env=environ)


def configuration(model: str, source: str) -> str:
    """TOML's strings are JSON's."""
    if model == BUILTIN:
        return "# The built-in model, whose row needs no words here.\n"
    row = {"name": model, "source": source, "download": False}
    return "\n".join(["[[models]]", *(f"{name} = {json.dumps(value)}" for name, value in row.items())]) + "\n"


if __name__ == "__main__":
    main()
