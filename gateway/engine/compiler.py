"""The compiler: traces a whole sentence-transformers pipeline into OpenVINO, measures its vectors, and writes an artifact.

If OpenVINO gives the model's vectors in no precision, the artifact records that torch must serve it. A model that was asked for in
8 bits is served so or refused.

It runs as `python -m gateway.engine.compiler`, in a process of its own, so that the gateway never needs torch's 500 MB.
`compile_model` starts that process and passes on its progress.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from gateway.config import child_environment
from gateway.cpus import num_cpus, quota_cpus
from gateway.engine import artifact
from gateway.engine.artifact import NETWORK, TOKENIZER, ArtifactStore, Manifest, Target
from gateway.engine.compile_report import CompileReport, read_reports
from gateway.engine.confinement import confined, landlock_version
from gateway.engine.fidelity import FAILURES, UNFAITHFUL, Expected, Proof, Unfaithful, expected_of, judge, proof_of
from gateway.engine.identity import identity_of, refuse_changed, sha256_of
from gateway.engine.int8 import is_int8
from gateway.engine.own_code import environment_of_own_code, repository_of
from gateway.engine.precision import CANDIDATES
from gateway.engine.static_encoder import PRECISION, RUNTIME, StaticEncoder
from gateway.engine.static_model import is_static, read_static_model
from gateway.engine.unsupported import OTHER_KIND
from gateway.errors import OperatorError
from gateway.log import get_logger

if TYPE_CHECKING:
    from gateway.engine.int8_build import HeldOut

STEPS = ("loading", "converting", "quantising", "measuring", "writing")  # "quantising" is left out of other precisions
COMMAND = (sys.executable, "-m", "gateway.engine.compiler")
TIMEOUT_SECONDS = 1800.0
NICENESS = 10  # beside serving: a tenth of a busy core, so that compiling still ends on a machine that always has work

NO_MEMORY = ("Failed to allocate", "bad_alloc", "can't allocate memory")  # in the text of OpenVINO's and torch's errors
BULLET = "-- "  # before each reason in the text of OpenVINO's conversion errors, below lines about its own source
TEXTS, MODELS = "texts", "models"  # in the workspace of a child that runs code of the model's own
DEFAULT_CATEGORY = CompileReport().category
CATEGORIES = {DEFAULT_CATEGORY, OTHER_KIND, UNFAITHFUL}
INTERRUPTED = (-signal.SIGINT, -signal.SIGTERM)  # exit codes: Ctrl-C reaches the child too

HINT = (
    "calibrate it by texts like yours (gateway models build NAME --calibrate FILE), ask for 'int8' if this was 'int8-fast', or set"
    " precision = 'auto'"
)

Progress = Callable[[str], None]

log = get_logger()


class Interrupted(OperatorError):
    """The gateway was stopped while it compiled."""


class CompileProcess:
    """The child process that compiles. `stop` may come from another thread; after it, `start` starts nothing.

    While `is_serving` says that requests are served beside it, a child has a low priority and half of the cores.
    """

    def __init__(self, is_serving: Callable[[], bool] = lambda: False) -> None:
        self.is_serving = is_serving
        self.process: subprocess.Popen[bytes] | None = None
        self.is_stopped = False
        self.is_group = False
        self.lock = threading.Lock()

    def start(self, command: Sequence[str], *, own_code_in: Path | None = None) -> "subprocess.Popen[bytes]":
        """Starts the child. `own_code_in` is its folder if code of the model's own runs in it: then it is a group of processes.

        Raises Interrupted if `stop` was called before.
        """
        with self.lock:
            if self.is_stopped:
                raise Interrupted("compiling the model was interrupted")
            self.is_group = own_code_in is not None
            environment = environment_of_own_code(own_code_in) if own_code_in is not None else child_environment()
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                env=environment,
                cwd=own_code_in,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=self.is_group,
            )
            if self.is_serving():
                _lower_priority(self.process.pid, has_own_session=self.is_group)
            return self.process

    @property
    def num_threads(self) -> int:
        """The threads that a child may compute with; 0 is as many as the runtimes see."""
        if self.is_serving():
            return max(1, num_cpus() // 2)
        return num_cpus() if quota_cpus() else 0

    def stop(self) -> None:
        """Terminates the child; idempotent, and harmless once the child has ended."""
        with self.lock:
            self.is_stopped = True
            if self.process is not None and self.is_group:
                self.kill()
            elif self.process is not None:
                self.process.terminate()

    def kill(self) -> None:
        """Kills the child, and what code of the model's own started."""
        if self.process is not None and self.is_group:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.kill()


class CompileJob(Struct, frozen=True):
    """What to compile, and the folder of artifacts to write it to. `calibrate` is a file of texts for 8 bits, or ""."""

    folder: str
    source: str
    precision: str
    artifacts: str
    revision: str | None = None
    trusts_code: bool = False
    threads: int = 0
    calibrate: str = ""


def _lower_priority(pid: int, *, has_own_session: bool) -> None:
    """Lets a process run mostly where others leave time. Nice values are compared within a session where the kernel groups these.

    Source: sched(7), "The nice value and group scheduling".
    """
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
        os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    if has_own_session:
        with suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS), encoding="ascii")


def compile_model(  # noqa: PLR0913 - the last two are for tests
    folder: Path,
    *,
    source: str,
    precision: str,
    artifacts: ArtifactStore,
    progress: Progress,
    child: CompileProcess,
    revision: str | None = None,
    trusts_code: bool = False,
    calibrate: Path | None = None,
    command: Sequence[str] = COMMAND,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Compiles in a child process, and blocks until the artifact is written. With `trusts_code` the model's own code runs there.

    Raises OperatorError if it cannot be made, or not within `timeout_seconds`, and Interrupted if the gateway stops.
    """
    texts = str(calibrate.resolve()) if calibrate else ""
    job = CompileJob(str(folder), source, precision, str(artifacts.folder), revision, trusts_code, child.num_threads, texts)
    if not trusts_code:
        with child.start([*command, msgspec.json.encode(job).decode()]) as process:
            _follow(process, progress, child, timeout_seconds)
        return
    if not landlock_version():
        log.warning("own_code_unconfined", source=source, hint="this kernel has no Landlock: the model's code may read any file")
    with artifacts.workspace() as workspace:
        if texts:  # the child may read its workspace, and not the folder of the operator's file
            texts = str(shutil.copy(texts, workspace / TEXTS))
        own = msgspec.structs.replace(job, artifacts=str(workspace / MODELS), calibrate=texts)
        confined_command = confined(
            [*command, msgspec.json.encode(own).decode()], readable=[folder, repository_of(folder)], writable=workspace
        )
        with child.start(confined_command, own_code_in=workspace) as process:
            _follow(process, progress, child, timeout_seconds)
        artifacts.adopt(ArtifactStore(workspace / MODELS), identity_of(folder), precision)


def _follow(process: "subprocess.Popen[bytes]", progress: Progress, child: CompileProcess, seconds: float) -> None:
    """Passes on the child's progress until it ends. Raises as `compile_model`."""
    error, begun = CompileReport(), set[str]()
    try:
        for report in read_reports(process, seconds=seconds):
            error = report if report.error else error
            if report.step in STEPS and report.step not in begun:
                begun.add(report.step)
                progress(report.step)
        is_late = process.returncode is None
    finally:
        child.kill()
    if is_late and not child.is_stopped:
        raise OperatorError(f"compiling the model was given up: it had not ended after {seconds:g} seconds")
    if child.is_stopped or process.returncode in INTERRUPTED:
        raise Interrupted("compiling the model was interrupted")
    if process.returncode != 0:
        if error.error:
            raise OperatorError(error.error, category=error.category if error.category in CATEGORIES else DEFAULT_CATEGORY)
        raise OperatorError(f"compiling the model ended with exit code {process.returncode}")


def _print_report(report: CompileReport) -> None:
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()


def run(job: CompileJob) -> None:
    """The child's whole work. Tries the requested precision, then float32, then torch, and keeps the first that is faithful.

    Raises OperatorError if the model cannot be loaded, and Unfaithful if torch's own vectors are unreliable too.
    """
    from gateway.engine.tokenizer import Tokenizer  # noqa: PLC0415 - only the child imports it, as those below
    from gateway.engine.torch_loader import load_encoder  # noqa: PLC0415

    folder, artifacts = Path(job.folder), ArtifactStore(Path(job.artifacts))
    target = Target(job.source, job.precision, identity_of(folder), job.revision)
    if is_static(folder):
        _measure_static(folder, target, artifacts)
        return
    _print_report(CompileReport("loading"))
    reference = load_encoder(folder, device="cpu", precision="float32", threads=job.threads, trusts_code=job.trusts_code)
    refuse_changed(folder, target.identity)
    _print_report(CompileReport("converting"))
    network, reason = convert(reference)
    tokenizer = Tokenizer(reference.info.tokenizer_json)
    held_out = None
    if is_int8(job.precision):
        from gateway.engine import int8_build  # noqa: PLC0415 - the quantiser is for these alone

        _print_report(CompileReport("quantising"))
        network, held_out = int8_build.quantized(
            network, reason, reference, tokenizer, precision=job.precision, texts=job.calibrate
        )
    _print_report(CompileReport("measuring"))
    measure = Measure(
        expected_of(reference, tokenizer), proof_of(reference, tokenizer), [reason] if reason else [], job.threads, held_out
    )

    def make(making: Path) -> None:
        for precision in CANDIDATES[job.precision] if network is not None else ():
            manifest = _write_artifact(network, reference, target, making, precision, measure)
            if manifest is not None:
                break
        else:
            manifest = _without_network(folder, reference, target, making, measure)
        _print_report(CompileReport("writing"))
        artifact.write_manifest(making, manifest)

    artifacts.put(artifacts.path(target.identity, job.precision), make)


def _measure_static(folder: Path, target: Target, artifacts: ArtifactStore) -> None:
    """Compares numpy's vectors of a static model with sentence-transformers'. Raises Unfaithful if they are others."""
    from gateway.engine.static_reference import StaticReference  # noqa: PLC0415
    from gateway.engine.tokenizer import Tokenizer  # noqa: PLC0415

    _print_report(CompileReport("loading"))
    reference, encoder = StaticReference(folder), StaticEncoder(read_static_model(folder))
    refuse_changed(folder, target.identity)
    _print_report(CompileReport("measuring"))
    tokenizer = Tokenizer(reference.info.tokenizer_json)
    expected = expected_of(reference, tokenizer)
    fidelity, reason = judge([encoder], expected)
    if reason:
        raise Unfaithful(folder, [reason])
    manifest = artifact.manifest_of(
        reference.info, target, runtime="numpy", precision=PRECISION, fallback="", fidelity=fidelity,
        max_probe_tokens=expected.max_tokens, proof=proof_of(reference, tokenizer),
    )  # fmt: skip
    _print_report(CompileReport("writing"))
    artifacts.put(artifacts.path(target.identity, RUNTIME), partial(artifact.write_manifest, manifest=manifest))


@dataclass(frozen=True, slots=True)
class Measure:
    """The reference that every attempt is measured against, and why earlier attempts were given up.

    `held_out` are texts that did not calibrate an 8-bit network.
    """

    expected: Expected
    proof: Proof
    given_up: list[str]
    threads: int = 0
    held_out: "HeldOut | None" = None


def convert(reference: Any) -> tuple[object, str]:
    """Returns the network converted to OpenVINO and ""; or None and the reason if OpenVINO cannot convert it."""
    from gateway.engine.attention_products import decompose_attention  # noqa: PLC0415
    from gateway.engine.gated_layers import keep_apart  # noqa: PLC0415
    from gateway.engine.openvino_import import CONVERSION_FAILURES, openvino  # noqa: PLC0415
    from gateway.engine.stable_maximum import stabilise_maxima  # noqa: PLC0415

    try:
        network = reference.trace(openvino)
        decompose_attention(network)
        stabilise_maxima(network)
        keep_apart(network)
    except OperatorError as error:  # its message is already written for operators
        return None, str(error)
    except FAILURES as error:
        return None, f"OpenVINO cannot convert it ({type(error).__name__}: {first_line(error)})"
    except CONVERSION_FAILURES as error:
        lines = [line.removeprefix(BULLET) for line in str(error).splitlines() if line.startswith(BULLET)]
        return None, f"OpenVINO cannot convert it ({lines[0] if lines else first_line(error)})"
    return network, ""


def first_line(error: Exception) -> str:
    """The error's first line. Raises OperatorError if the error is a lack of memory, as a later attempt may succeed."""
    if any(sign in str(error) for sign in NO_MEMORY):
        raise OperatorError("this machine has too little memory at the moment to compile the model")
    return (str(error).splitlines() or [""])[0]


def _write_artifact(  # noqa: PLR0913, PLR0917
    network: object, reference: Any, target: Target, making: Path, precision: str, measure: Measure
) -> Manifest | None:
    """Writes all files but the manifest, in `precision`. Returns None if it is not faithful, and adds the reason to `measure`."""
    from gateway.engine import openvino_encoder  # noqa: PLC0415
    from gateway.engine.openvino_import import openvino  # noqa: PLC0415

    # float16 weights on disk suit bfloat16 (same worst cosine, half the size), but not float32 (the cosine is 3e-4 off), nor the
    # scales of 8-bit layers, which are below what float16 can tell from zero.
    try:
        openvino.save_model(network, making / NETWORK, compress_to_fp16=precision == "bfloat16")
    except RuntimeError:  # of a full disk it says no more than "iostream error"
        raise OperatorError(f"the compiled model cannot be written to {making.parent}: is the disk full?") from None
    (making / TOKENIZER).write_text(reference.info.tokenizer_json, encoding="utf-8")
    files = {name: sha256_of(making / name) for name in artifact.CONTENT}
    manifest = artifact.manifest_of(
        reference.info, target, runtime="openvino", precision=precision, fallback="; ".join(measure.given_up),
        fidelity=0, max_probe_tokens=measure.expected.max_tokens, proof=measure.proof, files=files,
        calibration=measure.held_out.digest if measure.held_out else "",
    )  # fmt: skip
    kept = None
    try:
        [encoder] = openvino_encoder.load(target.source, making, manifest, threads=measure.threads, streams=1)
        fidelity, reason = judge([encoder], measure.expected)
        if measure.held_out is not None and not reason:
            kept, reason = measure.held_out.judge(encoder)
    except RuntimeError as error:
        fidelity, reason = -1.0, f"OpenVINO cannot compile it in {precision} ({first_line(error)})"
    if reason:
        measure.given_up.append(reason)
        return None
    return msgspec.structs.replace(manifest, fidelity=fidelity, nearest_kept=kept)


def _without_network(folder: Path, reference: Any, target: Target, making: Path, measure: Measure) -> Manifest:
    """The manifest of a model that torch serves, with the factor by which that is slower.

    Raises Unfaithful if it cannot, and for 8 bits, which torch does not have.
    """
    from gateway.engine.torch_slowdown import slowdown_line  # noqa: PLC0415

    if is_int8(target.asked_precision):
        raise Unfaithful(folder, [*measure.given_up, HINT])
    fidelity, reason = judge([reference], measure.expected)
    if reason:
        raise Unfaithful(folder, [*measure.given_up, reason])
    for name in artifact.CONTENT:
        (making / name).unlink(missing_ok=True)
    slower = slowdown_line(folder, target.asked_precision)
    return artifact.manifest_of(
        reference.info, target, runtime="torch", precision="float32", fallback="; ".join(filter(None, [*measure.given_up, slower])),
        fidelity=fidelity, max_probe_tokens=measure.expected.max_tokens, proof=measure.proof,
    )  # fmt: skip


def main() -> None:
    job = msgspec.json.decode(sys.argv[1], type=CompileJob)
    try:
        run(job)
    except OperatorError as error:
        _print_report(CompileReport(error=str(error), category=error.category))
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the edge of the process: code of the model's own may raise anything
        _print_report(
            CompileReport(error=f"OpenVINO cannot compile the model in {job.folder}: {type(error).__name__}: {first_line(error)}")
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
