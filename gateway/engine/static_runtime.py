"""Loads static models. They are not compiled: the first time a child process measures them, later starts read their files alone."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gateway.engine import artifact
from gateway.engine.artifact import ArtifactStore, Manifest
from gateway.engine.compiler import CompileProcess, Progress, compile_model
from gateway.engine.fidelity import proof_of
from gateway.engine.identity import identity_of, refuse_changed
from gateway.engine.loaded_model import LoadedModel
from gateway.engine.model_size import folder_bytes
from gateway.engine.settings import LocalSettings
from gateway.engine.static_encoder import RUNTIME, StaticEncoder
from gateway.engine.static_model import read_static_model
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import ConfigurationError
from gateway.log import get_logger

log = get_logger()


def load(name: str, settings: LocalSettings, folder: Path, artifacts: ArtifactStore, *, child: CompileProcess) -> LoadedModel:
    """Raises OperatorError if the model cannot be loaded, and Unfaithful if numpy does not give its vectors."""
    refuse_settings_of_networks(settings)
    identity = identity_of(folder)
    encoder = StaticEncoder(read_static_model(folder))
    refuse_changed(folder, identity)
    manifest = artifact.read(measured(name, settings, folder, artifacts, progress=_log_progress(name), child=child))
    if manifest is None:
        log.warning("fidelity_not_measured", model=name, hint="torch, which measures it, is not installed")
        proof = proof_of(encoder, Tokenizer(encoder.info.tokenizer_json))
        return LoadedModel([encoder], identity, None, proof, num_bytes=folder_bytes(folder))
    return LoadedModel([encoder], identity, manifest.fidelity, manifest.proof.read(), num_bytes=folder_bytes(folder))


def measured(  # noqa: PLR0913 - named, the last two
    name: str, settings: LocalSettings, folder: Path, artifacts: ArtifactStore, *, progress: Progress, child: CompileProcess
) -> Path:
    """The folder of the measurement, which is made if there is none and torch is installed."""
    identity = identity_of(folder)
    if artifacts.find(identity, RUNTIME) is None and _can_measure():
        log.info("measuring_model", model=name, hint="only once; later starts load its table alone")
        compile_model(folder, source=settings.source, precision=RUNTIME, artifacts=artifacts, progress=progress, child=child)
    return artifacts.path(identity, RUNTIME)


def known(folder: Path, artifacts: ArtifactStore) -> Manifest | None:
    """The stored measurement; None if there is none."""
    return artifact.read(artifacts.path(identity_of(folder), RUNTIME))


def refuse_settings_of_networks(settings: LocalSettings) -> None:
    """Raises ConfigurationError, naming the setting, if the row asks a static model for another runtime, device or precision."""
    asked: dict[str, tuple[str | bool, set[str | bool]]] = {
        "runtime": (settings.runtime, {"auto"}),
        "device": (settings.device, {"auto", "cpu"}),
        "precision": (settings.precision, {"auto", "float32"}),
        "trust_remote_code": (settings.trust_remote_code, {False}),
    }
    for setting, (value, possible) in asked.items():
        if value not in possible:
            raise ConfigurationError(
                f"{setting} = '{value}': this is a static model, which numpy serves on the CPU in float32: remove the setting"
            )


def _can_measure() -> bool:
    try:
        return bool(version("torch") and version("sentence-transformers"))
    except PackageNotFoundError:
        return False


def _log_progress(name: str) -> Progress:
    return lambda step: log.info("measuring_model", model=name, step=step)
