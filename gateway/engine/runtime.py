"""Chooses and loads the encoders of a model on this machine: compiled with OpenVINO on the CPU, through torch on CUDA."""

import os
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import EngineSettings
from gateway.cpus import read_cpus
from gateway.embedding.embedder import ModelKind
from gateway.engine import artifact, model_size, static_runtime
from gateway.engine.artifact import ArtifactStore, Manifest, Target
from gateway.engine.compiler import CompileProcess, Interrupted, Progress, compile_model
from gateway.engine.fidelity import UNFAITHFUL
from gateway.engine.identity import identity_of, refuse_changed
from gateway.engine.int8 import is_int8, refuse_int8_of
from gateway.engine.kind import kind_of, pooled_by_default
from gateway.engine.loaded_model import LoadedModel
from gateway.engine.model_folder import is_bare
from gateway.engine.settings import LocalSettings
from gateway.engine.static_model import is_static
from gateway.engine.stream_plan import num_threads, plan_streams
from gateway.engine.unsupported import OTHER_KIND
from gateway.engine.weights import find_folder, local_folder
from gateway.errors import ConfigurationError, OperatorError
from gateway.log import get_logger

if TYPE_CHECKING:
    from gateway.engine.torch_loader import Faithful

SHARING = 2  # encoders of a single stream of several threads: one makes its batch ready while the other's is computed
DRIVERS = ("/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1")  # signs of CUDA that need no import of torch

# After a load, until the network of single texts is built: those who waited have the cores first, and a process may end at once.
BUILD_AFTER_SECONDS = 5.0

log = get_logger()


def load(
    name: str, settings: LocalSettings, engine: EngineSettings, artifacts: ArtifactStore, *, child: CompileProcess
) -> LoadedModel:
    """Loads a model; blocks. The first time it compiles the model, until that is done or `child` is stopped.

    Raises OperatorError if the model cannot be loaded; its message names what is missing.
    """
    loaded = _loaded_by(name, settings, engine, artifacts, child)
    if loaded.fallback:
        info = loaded.encoders[0].info
        log.warning("precision_fell_back", model=name, runtime=info.runtime, precision=info.precision, reason=loaded.fallback)
    return loaded


def _loaded_by(
    name: str, settings: LocalSettings, engine: EngineSettings, artifacts: ArtifactStore, child: CompileProcess
) -> LoadedModel:
    is_compiled = compiles(settings)
    folder = static_folder(settings, artifacts)
    if folder is not None:
        return static_runtime.load(name, settings, folder, artifacts, child=child)
    if not is_compiled:
        return _load_torch(name, settings, engine, artifacts)
    try:
        return _load_compiled(name, settings, engine, artifacts, child)
    except Interrupted:
        raise
    except OperatorError as error:
        is_torch_no_help = error.category in {UNFAITHFUL, OTHER_KIND} or local_folder(settings) is None
        if settings.runtime == "openvino" or is_int8(settings.precision) or settings.trust_remote_code or is_torch_no_help:
            raise
        log.warning("not_compiled", model=name, reason=str(error), hint="served through torch instead, which is slower")
        return _load_torch(name, settings, engine, artifacts, why=str(error))


def plan_load(name: str, settings: LocalSettings, artifacts: ArtifactStore, *, child: CompileProcess) -> int:
    """Fetches and compiles what `load` would. Returns the memory that the model will take; 0 if that is unknown.

    Raises OperatorError if the model cannot be loaded.
    """
    if (static := static_folder(settings, artifacts)) is not None:
        return model_size.planned_bytes(static, None, None)
    path = manifest = None
    if compiles(settings):
        try:
            path = artifact_for(
                name, settings, artifacts, progress=lambda step: log.info("compiling_model", model=name, step=step), child=child
            )
            manifest = artifact.read(path)
        except Interrupted:
            raise
        except OperatorError:
            if settings.runtime == "openvino":
                raise  # else `load` says why, and takes torch if that can help
    return model_size.planned_bytes(local_folder(settings), path, manifest)


def known_bytes(settings: LocalSettings, artifacts: ArtifactStore) -> int | None:
    """The memory that the model will take, without loading or compiling anything; None if it is not known yet."""
    folder = local_folder(settings)
    if folder is not None and is_static(folder):
        return model_size.planned_bytes(folder, None, None)
    path = _known_path(settings, artifacts)
    if path is None:
        return None
    return model_size.planned_bytes(folder, path, artifact.read(path)) or None


def compiles(settings: LocalSettings) -> bool:
    """Whether these settings compile the model. Raises ConfigurationError if the runtime does not support device or precision."""
    needs_torch = settings.device.startswith("cuda") or settings.precision == "float16"
    if settings.runtime == "openvino" and needs_torch:
        raise ConfigurationError(
            f"runtime 'openvino' is for the CPU, in float32 or bfloat16: device is '{settings.device}', precision"
            f" '{settings.precision}'"
        )
    has_cuda = settings.device == "auto" and _seems_to_have_cuda()
    if is_int8(settings.precision) and (needs_torch or has_cuda or settings.runtime == "torch"):
        raise ConfigurationError(
            f"precision '{settings.precision}' is for the CPU, through OpenVINO: device is '{settings.device}'"
            f"{', and this machine has CUDA' if has_cuda else ''}, runtime '{settings.runtime}'"
        )
    is_compiled = settings.runtime == "openvino" or (settings.runtime == "auto" and not needs_torch and not has_cuda)
    if settings.trust_remote_code and not is_compiled:
        raise ConfigurationError(
            "trust_remote_code runs the model's code in the process that compiles it for the CPU, and never in the gateway, where"
            f" torch would run it: {_way_to_compile(settings)}, or remove trust_remote_code"
        )
    return is_compiled


def _way_to_compile(settings: LocalSettings) -> str:
    if settings.runtime == "torch":
        return "remove runtime = 'torch'"
    return "set precision = 'auto'" if settings.precision == "float16" else "set device = 'cpu'"


def static_folder(settings: LocalSettings, artifacts: ArtifactStore) -> Path | None:
    """The folder of a static model; None for others. Files are fetched from the hub unless an artifact takes their place."""
    folder = local_folder(settings)
    if folder is None and not (compiles(settings) and known_artifact(settings, artifacts)):
        folder = find_folder(settings)
    return folder if folder is not None and is_static(folder) else None


def _seems_to_have_cuda() -> bool:
    return torch_is_for_cuda() and any(map(os.path.exists, DRIVERS))


def torch_is_for_cuda() -> bool:
    """Whether torch is built for CUDA, by its version: that needs no import of it. An image that only serves has no torch."""
    try:
        return "+cpu" not in version("torch")
    except PackageNotFoundError:
        return False


def _load_compiled(
    name: str, settings: LocalSettings, engine: EngineSettings, artifacts: ArtifactStore, child: CompileProcess
) -> LoadedModel:
    path = artifact_for(
        name, settings, artifacts, progress=lambda step: log.info("compiling_model", model=name, step=step), child=child
    )
    manifest = artifact.read(path)
    if manifest is None:
        raise OperatorError(f"the compiled model in {path} cannot be read")
    if manifest.runtime == "torch":
        if settings.runtime == "openvino":
            raise OperatorError(f"OpenVINO does not give this model's vectors: {manifest.fallback}", category=UNFAITHFUL)
        if settings.trust_remote_code:
            raise OperatorError(
                f"OpenVINO does not give this model's vectors ({manifest.fallback}), and torch would run its own code in the"
                " gateway, which is never done: serve it with another server, as another backend",
                category=UNFAITHFUL,
            )
        return _known_to_torch(find_folder(settings), manifest, engine)
    return load_artifact(name, path, manifest, engine)


def load_artifact(name: str, path: Path, manifest: Manifest, engine: EngineSettings) -> LoadedModel:
    from gateway.engine import openvino_encoder  # noqa: PLC0415 - OpenVINO is imported where it is used

    cpus = read_cpus()
    plan = plan_streams(engine, cpus)
    shares_stream = plan.streams == 1 and (plan.threads or cpus.num_usable) > 1
    encoders = openvino_encoder.load(
        name, path, manifest, threads=plan.threads, streams=plan.streams, encoders=SHARING if shares_stream else plan.streams
    )
    latency = encoders[0].latency
    return LoadedModel(
        list(encoders), manifest.identity, manifest.fidelity, manifest.proof.read(), manifest.fallback,
        partial(latency.start, BUILD_AFTER_SECONDS),
        nearest_kept=manifest.nearest_kept, num_bytes=model_size.compiled_bytes(path, manifest), free=latency.close,
    )  # fmt: skip


def artifact_for(  # noqa: PLR0913 - named, but the first
    name: str,
    settings: LocalSettings,
    artifacts: ArtifactStore,
    *,
    progress: Progress,
    child: CompileProcess,
    calibrate: Path | None = None,
) -> Path:
    """Returns the artifact's folder, and compiles the model first if there is none, or texts to calibrate it anew."""
    precision = effective_precision(settings)
    folder = local_folder(settings)
    if folder is None:
        known = artifacts.find_by_source(settings.source, precision, settings.revision)
        if known is not None and calibrate is None:
            return known
        folder = find_folder(settings)
    identity = identity_of(folder)
    if calibrate is not None or artifacts.find(identity, precision) is None:
        refuse_int8_of(kind_of(folder, trusts_code=settings.trust_remote_code), precision)
        log.info("compiling_model", model=name, precision=precision, hint="only once; later starts load the compiled model")
        compile_model(
            folder,
            source=settings.source,
            revision=settings.revision,
            trusts_code=settings.trust_remote_code,
            precision=precision,
            artifacts=artifacts,
            progress=progress,
            child=child,
            calibrate=calibrate,
        )
    return artifacts.path(identity, precision)


def known_artifact(settings: LocalSettings, artifacts: ArtifactStore) -> Manifest | None:
    """Returns a stored manifest of the model, without loading or compiling anything; None if there is none."""
    folder = local_folder(settings)
    if folder is not None and is_static(folder):
        return static_runtime.known(folder, artifacts)
    path = _known_path(settings, artifacts)
    return artifact.read(path) if path else None


def _known_path(settings: LocalSettings, artifacts: ArtifactStore) -> Path | None:
    """The folder of a stored artifact of a model that is not static; None if there is none."""
    folder = local_folder(settings)
    if compiles(settings):
        precision = effective_precision(settings)
    elif settings.device == "cpu" or (settings.device == "auto" and not _seems_to_have_cuda()):
        precision = _torch_key(settings)
    else:
        return None  # on CUDA a model is measured at each load
    if folder is not None:
        return artifacts.find(identity_of(folder), precision)
    return artifacts.find_by_source(settings.source, precision, settings.revision)


def default_pooling(settings: LocalSettings) -> str:
    """How a folder without modules.json is pooled; "" for all other models, and if the files are not on this machine."""
    folder = local_folder(settings)
    is_pooled = folder is not None and is_bare(folder) and not is_static(folder) and _kind_of(folder, settings) == "embedder"
    return pooled_by_default(folder) if folder is not None and is_pooled else ""


def _kind_of(folder: Path, settings: LocalSettings) -> ModelKind:
    return kind_of(folder, trusts_code=settings.trust_remote_code)


def check_files(settings: LocalSettings, artifacts: ArtifactStore) -> None:
    """Raises OperatorError if a model's files are not on this machine and may not be downloaded."""
    is_here = local_folder(settings) is not None
    if not is_here and not settings.download and not (compiles(settings) and known_artifact(settings, artifacts)):
        find_folder(settings)


def effective_precision(settings: LocalSettings) -> str:
    """The precision in which a model is compiled: the row's, or else the one that this CPU has by itself."""
    from gateway.engine import openvino_encoder  # noqa: PLC0415 - as above

    return settings.precision if settings.precision != "auto" else openvino_encoder.native_precision()


def _load_torch(
    name: str, settings: LocalSettings, engine: EngineSettings, artifacts: ArtifactStore, *, why: str = ""
) -> LoadedModel:
    """Loads a model through torch, and measures it: on CUDA at every load and on each device, on a CPU once.

    `why` is the reason why compiling failed before. Raises OperatorError if it cannot be loaded, Unfaithful if no precision is
    faithful.
    """
    folder = find_folder(settings)
    identity = identity_of(folder)
    from gateway.engine.torch_encoder import choose_devices, release  # noqa: PLC0415
    from gateway.engine.torch_loader import load_faithful  # noqa: PLC0415 - torch is imported where it is used

    devices = choose_devices(settings.device)
    if settings.device == "auto" and devices == ["cpu"] and _seems_to_have_cuda():
        log.warning(
            "no_cuda_device",
            hint="there is a driver, but torch sees no device: this model runs on the CPU; device = 'cpu' compiles it",
        )
    asked = _torch_key(settings)
    path = artifacts.find(identity, asked) if devices == ["cpu"] else None
    manifest = artifact.read(path) if path else None
    if manifest is not None:
        loaded = _known_to_torch(folder, manifest, engine)
    else:
        faithful = load_faithful(folder, devices=devices, precision=settings.precision, threads=num_threads(engine, read_cpus()))
        num_bytes = sum(encoder.num_bytes for encoder in faithful.encoders)
        loaded = LoadedModel(
            list(faithful.encoders),
            identity,
            faithful.fidelity,
            faithful.proof,
            faithful.fallback,
            num_bytes=num_bytes,
            free=release,
        )
        if devices == ["cpu"]:
            keep(name, artifacts, faithful, Target(settings.source, asked, identity, settings.revision))
    refuse_changed(folder, identity)
    return replace(loaded, fallback="; ".join(filter(None, (why, loaded.fallback, _slowdown(folder, settings) if why else ""))))


def _slowdown(folder: Path, settings: LocalSettings) -> str:
    from gateway.engine.torch_slowdown import slowdown_line  # noqa: PLC0415 - as above

    return slowdown_line(folder, effective_precision(settings))


def _torch_key(settings: LocalSettings) -> str:
    """The precision under which the ArtifactStore keeps torch's measurement, beside compiled models."""
    return f"torch-{settings.precision}"


def _known_to_torch(folder: Path, manifest: Manifest, engine: EngineSettings) -> LoadedModel:
    """Loads a model through torch on the CPU, in the precision that an earlier load measured."""
    from gateway.engine.torch_encoder import release  # noqa: PLC0415 - as above
    from gateway.engine.torch_loader import load_encoder  # noqa: PLC0415 - as above

    encoder = load_encoder(folder, device="cpu", precision=manifest.precision, threads=num_threads(engine, read_cpus()))
    return LoadedModel(
        [encoder], manifest.identity, manifest.fidelity, manifest.proof.read(), manifest.fallback,
        num_bytes=encoder.num_bytes, free=release,
    )  # fmt: skip


def keep(name: str, artifacts: ArtifactStore, faithful: "Faithful", target: Target) -> None:
    """Stores the measurement. If that fails, the next start measures again."""
    encoder = faithful.encoders[0]
    manifest = artifact.manifest_of(
        encoder.info, target, runtime="torch", precision=encoder.info.precision, fallback=faithful.fallback,
        fidelity=faithful.fidelity, max_probe_tokens=faithful.max_probe_tokens, proof=faithful.proof,
    )  # fmt: skip
    try:
        artifacts.put(artifacts.path(target.identity, target.asked_precision), partial(artifact.write_manifest, manifest=manifest))
    except OperatorError as error:
        log.warning("fidelity_not_kept", model=name, reason=str(error))
