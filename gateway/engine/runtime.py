"""Which encoders serve a model on this machine, and getting them: compiled on the CPU, through torch on CUDA."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gateway.config import EngineSettings
from gateway.engine import artifact
from gateway.engine.artifact import Manifest, Shelf
from gateway.engine.compiler import Child, Interrupted, Progress, compile_model
from gateway.engine.encoder import Encoder
from gateway.engine.identity import Identity, identity_of, refuse_changed
from gateway.engine.kind import is_bare, pooled_by_default
from gateway.engine.settings import LocalSettings
from gateway.engine.weights import folder_of, local_folder_of
from gateway.errors import ConfigurationError, OperatorError
from gateway.log import get_logger

DRIVERS = ("/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1")  # looked for instead of importing torch to ask it
STREAMS_PER_CORES = 4  # two streams were best on two cores; on many, each has four to itself

log = get_logger()


@dataclass(frozen=True, slots=True)
class Loaded:
    """The encoders of one model, one a device thread, and what they were made from. `afterwards` is called once they serve."""

    encoders: list[Encoder]
    identity: Identity
    fidelity: float | None = None
    afterwards: Callable[[], None] = lambda: None


def load(name: str, settings: LocalSettings, engine: EngineSettings, shelf: Shelf, *, child: Child) -> Loaded:
    """Raises OperatorError naming what is missing. Blocks: the first time until it is compiled, or `child` stopped."""
    if not compiles(settings):
        return through_torch(settings, engine)
    try:
        return compiled(name, settings, engine, shelf, child)
    except Interrupted:
        raise
    except OperatorError as error:
        if settings.runtime == "openvino" or local_folder_of(settings.source) is None:
            raise
        log.warning("not_compiled", model=name, reason=str(error), hint="served through torch instead, several times slower")
        return through_torch(settings, engine)


def compiles(settings: LocalSettings) -> bool:
    """Whether a model of these settings is compiled. Raises ConfigurationError for a runtime that cannot do what is asked."""
    needs_torch = settings.device.startswith("cuda") or settings.precision == "float16"
    if settings.runtime == "openvino" and needs_torch:
        raise ConfigurationError(
            f"runtime 'openvino' is for the CPU, in float32 or bfloat16: device is '{settings.device}', precision"
            f" '{settings.precision}'"
        )
    has_cuda = settings.device == "auto" and seems_to_have_cuda()
    return settings.runtime == "openvino" or (settings.runtime == "auto" and not needs_torch and not has_cuda)


def seems_to_have_cuda() -> bool:
    return torch_is_for_cuda() and any(map(os.path.exists, DRIVERS))


def torch_is_for_cuda() -> bool:
    """Told from its version, which costs no import of it. An image that only serves has no torch."""
    try:
        return "+cpu" not in version("torch")
    except PackageNotFoundError:
        return False


def compiled(name: str, settings: LocalSettings, engine: EngineSettings, shelf: Shelf, child: Child) -> Loaded:
    place = artifact_for(
        name, settings, shelf, progress=lambda step: log.info("compiling_model", model=name, step=step), child=child
    )
    manifest = artifact.read(place)
    if manifest is None:
        raise OperatorError(f"the compiled model in {place} cannot be read")
    if manifest.precision != manifest.asked_precision:
        log.warning("precision_fell_back", model=name, asked=manifest.asked_precision, used=manifest.precision)
    return load_artifact(name, place, manifest, engine)


def load_artifact(name: str, place: Path, manifest: Manifest, engine: EngineSettings) -> Loaded:
    from gateway.engine import openvino_encoder  # noqa: PLC0415 - as above

    streams = engine.streams or default_streams()
    encoders = openvino_encoder.load(name, place, manifest, threads=engine.threads, streams=streams)
    return Loaded(list(encoders), manifest.identity, manifest.fidelity, encoders[0].crew.start)


def artifact_for(name: str, settings: LocalSettings, shelf: Shelf, *, progress: Progress, child: Child) -> Path:
    """The artifact's folder: found, or made now."""
    precision = effective_precision(settings)
    folder = local_folder_of(settings.source)
    if folder is None:
        known = shelf.find_by_source(settings.source, precision)
        if known is not None:
            return known
        folder = folder_of(settings.source, download=settings.download)
    identity = identity_of(folder)
    if shelf.find(identity, precision) is None:
        log.info("compiling_model", model=name, precision=precision, hint="once; later starts read what it makes")
        compile_model(folder, source=settings.source, precision=precision, shelf=shelf, progress=progress, child=child)
    return shelf.place(identity, precision)


def known_artifact(settings: LocalSettings, shelf: Shelf) -> Manifest | None:
    """What is known of a model without loading or making anything."""
    precision = effective_precision(settings)
    folder = local_folder_of(settings.source)
    place = shelf.find(identity_of(folder), precision) if folder else shelf.find_by_source(settings.source, precision)
    return artifact.read(place) if place else None


def default_pooling(settings: LocalSettings) -> str:
    """What a folder without modules.json is pooled with; empty for all others, and for files that are not here."""
    folder = local_folder_of(settings.source)
    return pooled_by_default(folder) if folder is not None and is_bare(folder) else ""


def found(settings: LocalSettings, shelf: Shelf) -> None:
    """Raises OperatorError where a model's files are nowhere and may not be fetched."""
    is_here = local_folder_of(settings.source) is not None
    if not is_here and not settings.download and not (compiles(settings) and known_artifact(settings, shelf)):
        folder_of(settings.source, download=False)


def effective_precision(settings: LocalSettings) -> str:
    from gateway.engine import openvino_encoder  # noqa: PLC0415 - as above

    return settings.precision if settings.precision != "auto" else openvino_encoder.native_precision()


def through_torch(settings: LocalSettings, engine: EngineSettings) -> Loaded:
    folder = folder_of(settings.source, download=settings.download)
    identity = identity_of(folder)
    from gateway.engine.torch_encoder import TorchEncoder, chosen_devices  # noqa: PLC0415 - torch is imported where it is used

    devices = chosen_devices(settings.device)
    if settings.device == "auto" and devices == ["cpu"] and seems_to_have_cuda():
        log.warning(
            "no_cuda_device",
            hint="there is a driver, but torch sees no device: this model runs on the CPU; device = 'cpu' compiles it",
        )
    encoders: list[Encoder] = [
        TorchEncoder(folder, device=device, precision=settings.precision, threads=engine.threads) for device in devices
    ]
    refuse_changed(folder, identity)
    return Loaded(encoders, identity)


def default_streams() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, max(2, cores // STREAMS_PER_CORES))
