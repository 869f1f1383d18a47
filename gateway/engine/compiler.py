"""Makes an artifact: the whole sentence-transformers pipeline traced into OpenVINO once, measured, and written.

Runs as `python -m gateway.engine.compiler`, in a process of its own, so that the gateway never holds torch's 500 MB:
`compile_model` starts it, and passes on what it says of its progress.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gateway.config import child_environment
from gateway.engine import artifact
from gateway.engine.artifact import FORMAT, NETWORK, TOKENIZER, Manifest, Shelf
from gateway.engine.fidelity import MIN_COSINE, worst_cosine
from gateway.engine.identity import Identity, identity_of, refuse_changed, sha256_of
from gateway.errors import OperatorError

STEPS = ("loading", "converting", "measuring", "writing")
COMMAND = (sys.executable, "-m", "gateway.engine.compiler")
TIMEOUT_SECONDS = 1800.0

INTERRUPTED = (-signal.SIGINT, -signal.SIGTERM)  # exit codes: a Ctrl-C reaches the child too

Progress = Callable[[str], None]


class Interrupted(OperatorError):
    """The gateway was told to stop while it compiled."""


class Child:
    """The process that compiles, for whoever must end it early; ended before it began, it does not begin."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.is_stopped = False
        self.lock = threading.Lock()

    def start(self, command: Sequence[str]) -> "subprocess.Popen[str]":
        """Raises Interrupted."""
        with self.lock:
            if self.is_stopped:
                raise Interrupted("compiling the model was interrupted")
            self.process = subprocess.Popen(  # noqa: S603 - our own
                command, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            return self.process

    def stop(self) -> None:
        """May be called twice, or when all is over."""
        with self.lock:
            self.is_stopped = True
            if self.process is not None:
                self.process.terminate()


class Order(Struct, frozen=True):
    """What to compile, and where to."""

    folder: str
    source: str
    precision: str
    shelf: str


class Report(Struct, frozen=True):
    """A line the child prints: a step begun, or what went wrong."""

    step: str = ""
    error: str = ""


def compile_model(  # noqa: PLR0913 - the last two are for tests
    folder: Path,
    *,
    source: str,
    precision: str,
    shelf: Shelf,
    progress: Progress,
    child: Child,
    command: Sequence[str] = COMMAND,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Blocks until the artifact is in its place. Raises OperatorError with the reason where it cannot be made, or not in time."""
    order = msgspec.json.encode(Order(str(folder), source, precision, str(shelf.folder))).decode()
    error = ""
    is_late = threading.Event()
    with child.start([*command, order]) as process:

        def give_up() -> None:
            is_late.set()
            process.kill()  # which closes what is read below

        watchdog = threading.Timer(timeout_seconds, give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            for line in process.stdout or ():
                report = reported(line)
                error = report.error or error
                if report.step:
                    progress(report.step)
            process.wait()
        finally:
            watchdog.cancel()
            process.kill()
    if process.returncode in INTERRUPTED:
        raise Interrupted("compiling the model was interrupted")
    if process.returncode != 0:
        if is_late.is_set():
            raise OperatorError(f"compiling the model was given up: it had not ended after {timeout_seconds:g} seconds")
        raise OperatorError(error or f"compiling the model ended with exit code {process.returncode}")


def reported(line: str) -> Report:
    """Libraries print to standard output too; what is no report is passed over."""
    try:
        return msgspec.json.decode(line, type=Report)
    except msgspec.MsgspecError:
        return Report()


def tell(report: Report) -> None:
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()


def compiled(order: Order) -> None:
    """The child's whole work."""
    from gateway.engine.quiet_openvino import openvino  # noqa: PLC0415 - in the child alone
    from gateway.engine.torch_encoder import TorchEncoder  # noqa: PLC0415

    folder, shelf = Path(order.folder), Shelf(Path(order.shelf))
    identity = identity_of(folder)
    tell(Report("loading"))
    reference = TorchEncoder(folder, device="cpu", precision="float32", threads=0)
    refuse_changed(folder, identity)
    tell(Report("converting"))
    network = reference.traced(openvino)

    def make(making: Path) -> None:
        manifest = made(network, reference, identity, order, making, order.precision)
        if manifest.fidelity < MIN_COSINE and order.precision != "float32":
            manifest = made(network, reference, identity, order, making, "float32")
        tell(Report("writing"))
        artifact.write_manifest(making, manifest)

    shelf.put(shelf.place(identity, order.precision), make)


def made(network: object, reference: Any, identity: Identity, order: Order, making: Path, precision: str) -> Manifest:  # noqa: PLR0913, PLR0917
    """Writes all but the manifest, in `precision`, and measures it."""
    from gateway.engine import openvino_encoder  # noqa: PLC0415
    from gateway.engine.quiet_openvino import openvino  # noqa: PLC0415
    from gateway.engine.tokenizer import Tokenizer  # noqa: PLC0415

    # Weights in float16 are right for bfloat16 (the same worst cosine, half the disk) and wrong for float32 (3e-4 off).
    try:
        openvino.save_model(network, making / NETWORK, compress_to_fp16=precision != "float32")
    except RuntimeError:  # "iostream error" is all it says of a full disk
        raise OperatorError(f"the compiled model cannot be written to {making.parent}: is the disk full?") from None
    (making / TOKENIZER).write_text(reference.info.tokenizer_json, encoding="utf-8")
    info = reference.info
    manifest = Manifest(
        format=FORMAT,
        source=order.source,
        origin=origin_of(order.source),
        made_at=time.time(),
        asked_precision=order.precision,
        precision=precision,
        identity=identity,
        libraries=artifact.installed_libraries(),
        dimensions=info.dimensions,
        max_tokens=info.max_tokens,
        prompts=info.prompts,
        default_prompt=info.default_prompt,
        is_normalized=info.is_normalized,
        leaves_prompt_out=info.leaves_prompt_out,
        pad_id=reference.pad_id,
        fidelity=0,
        files={name: sha256_of(making / name) for name in artifact.CONTENT},
    )
    tell(Report("measuring"))
    [encoder] = openvino_encoder.load(order.source, making, manifest, threads=0, streams=1)
    return msgspec.structs.replace(manifest, fidelity=worst_cosine(encoder, reference, Tokenizer(info.tokenizer_json)))


def origin_of(source: str) -> str:
    """The folder a source names, however it is written; the source itself where it is a name on the hub."""
    folder = Path(source).expanduser()
    return str(folder.resolve()) if folder.is_dir() else source


def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=Order)
    try:
        compiled(order)
    except OperatorError as error:
        tell(Report(error=str(error)))
        sys.exit(1)
    except (RuntimeError, ValueError, TypeError, OSError, AttributeError, KeyError) as error:
        first = (str(error).splitlines() or [""])[0]
        tell(Report(error=f"OpenVINO cannot compile the model in {order.folder}: {type(error).__name__}: {first}"))
        sys.exit(1)


if __name__ == "__main__":
    main()
