"""Makes an artifact: the whole sentence-transformers pipeline traced into OpenVINO once, measured, and written.

Where OpenVINO does not give the model's vectors in any precision, the artifact says so, and that torch does.

Runs as `python -m gateway.engine.compiler`, in a process of its own, so that the gateway never holds torch's 500 MB:
`compile_model` starts it, and passes on what it says of its progress.
"""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gateway.background import BackgroundThread
from gateway.config import child_environment
from gateway.engine import artifact
from gateway.engine.artifact import NETWORK, TOKENIZER, ArtifactStore, Manifest, Target
from gateway.engine.fidelity import FAILURES, Expected, Proof, Unfaithful, expected_of, judge, proof_of
from gateway.engine.identity import identity_of, refuse_changed, sha256_of
from gateway.engine.precision import CANDIDATES
from gateway.errors import OperatorError

STEPS = ("loading", "converting", "measuring", "writing")
COMMAND = (sys.executable, "-m", "gateway.engine.compiler")
TIMEOUT_SECONDS = 1800.0

NO_MEMORY = ("Failed to allocate", "bad_alloc", "can't allocate memory")  # in what OpenVINO and torch raise
INTERRUPTED = (-signal.SIGINT, -signal.SIGTERM)  # exit codes: a Ctrl-C reaches the child too

Progress = Callable[[str], None]


class Interrupted(OperatorError):
    """The gateway was told to stop while it compiled."""


class CompileProcess:
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


class CompileJob(Struct, frozen=True):
    """What to compile, and where to."""

    folder: str
    source: str
    precision: str
    artifacts: str


class CompileReport(Struct, frozen=True):
    """A line the child prints: a step begun, or what went wrong."""

    step: str = ""
    error: str = ""
    category: str = "cannot_be_loaded"


def compile_model(  # noqa: PLR0913 - the last two are for tests
    folder: Path,
    *,
    source: str,
    precision: str,
    artifacts: ArtifactStore,
    progress: Progress,
    child: CompileProcess,
    command: Sequence[str] = COMMAND,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Blocks until the artifact is in its place. Raises OperatorError with the reason where it cannot be made, or not in time."""
    job = msgspec.json.encode(CompileJob(str(folder), source, precision, str(artifacts.folder))).decode()
    error = CompileReport()
    is_over, is_late = threading.Event(), threading.Event()
    with child.start([*command, job]) as process:

        def give_up_late() -> None:
            if not is_over.wait(timeout_seconds):
                is_late.set()
                process.kill()  # which closes what is read below

        try:
            BackgroundThread("compile-deadline", give_up_late, may_end=True).start()
            for line in process.stdout or ():
                report = parse_report(line)
                error = report if report.error else error
                if report.step:
                    progress(report.step)
            process.wait()
        finally:
            is_over.set()
            process.kill()
    if process.returncode in INTERRUPTED:
        raise Interrupted("compiling the model was interrupted")
    if process.returncode != 0:
        if is_late.is_set():
            raise OperatorError(f"compiling the model was given up: it had not ended after {timeout_seconds:g} seconds")
        if error.error:
            raise OperatorError(error.error, category=error.category)
        raise OperatorError(f"compiling the model ended with exit code {process.returncode}")


def parse_report(line: str) -> CompileReport:
    """Libraries print to standard output too; what is no report is passed over."""
    try:
        return msgspec.json.decode(line, type=CompileReport)
    except msgspec.MsgspecError:
        return CompileReport()


def print_report(report: CompileReport) -> None:
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()


def run(job: CompileJob) -> None:
    """The child's whole work: what reaches the bar first, of the precision asked for, float32, and torch.

    Raises OperatorError where the model cannot be loaded, and Unfaithful where not even torch gives vectors to rely on.
    """
    from gateway.engine.tokenizer import Tokenizer  # noqa: PLC0415 - in the child alone, as what follows
    from gateway.engine.torch_encoder import TorchEncoder  # noqa: PLC0415

    folder, artifacts = Path(job.folder), ArtifactStore(Path(job.artifacts))
    target = Target(job.source, job.precision, identity_of(folder))
    print_report(CompileReport("loading"))
    reference = TorchEncoder(folder, device="cpu", precision="float32", threads=0)
    refuse_changed(folder, target.identity)
    print_report(CompileReport("converting"))
    network, reason = convert(reference)
    print_report(CompileReport("measuring"))
    tokenizer = Tokenizer(reference.info.tokenizer_json)
    measure = Measure(expected_of(reference, tokenizer), proof_of(reference, tokenizer), [reason] if reason else [])

    def make(making: Path) -> None:
        for precision in CANDIDATES[job.precision] if network is not None else ():
            manifest = write_artifact(network, reference, target, making, precision, measure)
            if manifest is not None:
                break
        else:
            manifest = without_network(folder, reference, target, making, measure)
        print_report(CompileReport("writing"))
        artifact.write_manifest(making, manifest)

    artifacts.put(artifacts.path(target.identity, job.precision), make)


@dataclass(frozen=True, slots=True)
class Measure:
    """What every attempt is measured by, and why those before it were given up."""

    expected: Expected
    proof: Proof
    given_up: list[str]


def convert(reference: Any) -> tuple[object, str]:
    """The network as OpenVINO has it; None and the reason where it cannot convert that."""
    from gateway.engine.openvino_import import openvino  # noqa: PLC0415

    try:
        return reference.trace(openvino), ""
    except OperatorError as error:  # its text is written for operators already
        return None, str(error)
    except FAILURES as error:
        return None, f"OpenVINO cannot convert it ({type(error).__name__}: {first_line(error)})"


def first_line(error: Exception) -> str:
    """Raises OperatorError where want of memory is all that is said: another time there may be more."""
    if any(sign in str(error) for sign in NO_MEMORY):
        raise OperatorError("this machine has too little memory at the moment to compile the model")
    return (str(error).splitlines() or [""])[0]


def write_artifact(  # noqa: PLR0913, PLR0917
    network: object, reference: Any, target: Target, making: Path, precision: str, measure: Measure
) -> Manifest | None:
    """Writes all but the manifest, in `precision`. None where it is not faithful, which `measure` then knows."""
    from gateway.engine import openvino_encoder  # noqa: PLC0415
    from gateway.engine.openvino_import import openvino  # noqa: PLC0415

    # Weights in float16 are right for bfloat16 (the same worst cosine, half the disk) and wrong for float32 (3e-4 off).
    try:
        openvino.save_model(network, making / NETWORK, compress_to_fp16=precision != "float32")
    except RuntimeError:  # "iostream error" is all it says of a full disk
        raise OperatorError(f"the compiled model cannot be written to {making.parent}: is the disk full?") from None
    (making / TOKENIZER).write_text(reference.info.tokenizer_json, encoding="utf-8")
    files = {name: sha256_of(making / name) for name in artifact.CONTENT}
    manifest = artifact.manifest_of(
        reference.info, target, runtime="openvino", precision=precision, fallback="; ".join(measure.given_up),
        fidelity=0, max_probe_tokens=measure.expected.max_tokens, proof=measure.proof, files=files,
    )  # fmt: skip
    try:
        [encoder] = openvino_encoder.load(target.source, making, manifest, threads=0, streams=1)
        fidelity, reason = judge([encoder], measure.expected)
    except RuntimeError as error:
        fidelity, reason = -1.0, f"OpenVINO cannot compile it in {precision} ({first_line(error)})"
    if reason:
        measure.given_up.append(reason)
        return None
    return msgspec.structs.replace(manifest, fidelity=fidelity)


def without_network(folder: Path, reference: Any, target: Target, making: Path, measure: Measure) -> Manifest:
    """What is kept of a model that OpenVINO cannot serve faithfully, and torch can. Raises Unfaithful where it cannot either."""
    fidelity, reason = judge([reference], measure.expected)
    if reason:
        raise Unfaithful(folder, [*measure.given_up, reason])
    for name in artifact.CONTENT:
        (making / name).unlink(missing_ok=True)
    return artifact.manifest_of(
        reference.info, target, runtime="torch", precision="float32", fallback="; ".join(measure.given_up),
        fidelity=fidelity, max_probe_tokens=measure.expected.max_tokens, proof=measure.proof,
    )  # fmt: skip


def main() -> None:
    job = msgspec.json.decode(sys.argv[1], type=CompileJob)
    try:
        run(job)
    except OperatorError as error:
        print_report(CompileReport(error=str(error), category=error.category))
        sys.exit(1)
    except (RuntimeError, ValueError, TypeError, OSError, AttributeError, KeyError) as error:
        print_report(
            CompileReport(error=f"OpenVINO cannot compile the model in {job.folder}: {type(error).__name__}: {first_line(error)}")
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
