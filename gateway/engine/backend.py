"""The backend `sentence-transformers`: models that are loaded on this machine."""

from collections.abc import Iterator

from gateway.embedding.backend import UNKNOWN, Backend, BackendContext, Compiled, CompileProgress, Preview
from gateway.engine import artifact, runtime, static_runtime
from gateway.engine.artifact import ArtifactStore
from gateway.engine.calibration_texts import read_texts
from gateway.engine.compiler import STEPS, CompileProcess
from gateway.engine.embedder import LocalEmbedder, artifacts_of
from gateway.engine.hub import token_of
from gateway.engine.int8 import SLOW, is_int8, multiplies_int8
from gateway.engine.kind import kind_of
from gateway.engine.settings import BACKEND, LocalSettings, refuse_settings_of_embedders
from gateway.engine.static_model import is_static, read_static_model
from gateway.engine.static_runtime import refuse_settings_of_networks
from gateway.engine.weights import local_folder
from gateway.errors import ConfigurationError


class SentenceTransformersBackend(Backend):
    """The backend of models that sentence-transformers can load."""

    name = BACKEND
    settings = LocalSettings

    def build(self, settings: LocalSettings, context: BackendContext) -> LocalEmbedder:
        return LocalEmbedder(settings, context)

    def check(self, settings: LocalSettings, context: BackendContext) -> None:
        """Raises OperatorError if files or a token are missing and may not be downloaded, or no runtime does what the row asks."""
        token_of(settings)
        runtime.compiles(settings)
        runtime.check_files(settings, artifacts_of(context))
        folder = local_folder(settings)
        if folder is not None and is_static(folder):
            refuse_settings_of_networks(settings)
            read_static_model(folder)
        elif folder is not None:
            refuse_settings_of_embedders(settings, kind_of(folder, trusts_code=settings.trust_remote_code))

    def compile(self, settings: LocalSettings, context: BackendContext, progress: CompileProgress) -> Iterator[Compiled]:
        yield Compiled(context.name, compiled(settings, context, progress))

    def preview(self, settings: LocalSettings, context: BackendContext) -> Preview:
        return known(settings, artifacts_of(context))

    def is_local(self, settings: LocalSettings, context: BackendContext) -> bool:  # noqa: ARG002 - Backend's signature
        return True

    def find_compiled(self, settings: LocalSettings, context: BackendContext, fingerprint: str) -> LocalEmbedder | None:
        return LocalEmbedder(settings, context).from_fingerprint(fingerprint)


def compiled(settings: LocalSettings, context: BackendContext, progress: CompileProgress) -> str:
    """Compiles the model unless its artifact exists. Returns the artifact's folder, or the reason why there is none."""
    artifacts = artifacts_of(context)
    _refuse_calibration(settings, context)
    runtime.check_files(settings, artifacts)

    def begin(step: str) -> None:
        progress(context.name, step, share=(STEPS.index(step) + 1) / len(STEPS))

    static = runtime.static_folder(settings, artifacts)
    if static is not None:
        refuse_settings_of_networks(settings)
        static_runtime.measured(context.name, settings, static, artifacts, progress=begin, child=CompileProcess())
        return "nothing to compile: a static model, which numpy serves"
    if not runtime.compiles(settings):
        return "nothing to compile: it runs through torch"
    place = runtime.artifact_for(
        context.name, settings, artifacts, progress=begin, child=CompileProcess(), calibrate=context.calibrate
    )
    manifest = artifact.read(place)
    if manifest is not None and manifest.runtime == "torch":
        return f"measured, and served through torch: {manifest.fallback}"
    return str(place)


def _refuse_calibration(settings: LocalSettings, context: BackendContext) -> None:
    """Raises OperatorError if texts are given to calibrate a model that is not in 8 bits, or the file is of no use."""
    if context.calibrate is None:
        return
    if not is_int8(settings.precision):
        raise ConfigurationError(
            f"--calibrate is for the precisions int8 and int8-fast, and this model's is '{settings.precision}'"
        )
    read_texts(context.calibrate)


def known(settings: LocalSettings, artifacts: ArtifactStore) -> Preview:
    """A preview of the model, from its artifact if there is one. `state` also says how a folder without modules.json is pooled."""
    is_compiled = runtime.compiles(settings)
    manifest = runtime.known_artifact(settings, artifacts)
    pooling = runtime.default_pooling(settings)
    bare = f"; no modules.json: {pooling}" if pooling else ""
    if is_int8(settings.precision):
        bare += "" if multiplies_int8() else f"; {SLOW}"
    folder = local_folder(settings)
    kind = manifest.network.kind if manifest is not None else None
    if kind is None and folder is not None:
        kind = kind_of(folder, trusts_code=settings.trust_remote_code)
    num_bytes = runtime.known_bytes(settings, artifacts)
    if manifest is None and folder is not None and is_static(folder):
        return Preview(settings.source, kind=kind, runtime="numpy", device="cpu", state="not measured", bytes=num_bytes)
    if manifest is None and is_compiled:
        return Preview(settings.source, kind=kind, runtime="openvino", device="cpu", state=f"not compiled{bare}")
    if manifest is None:
        return Preview(settings.source, kind=kind, runtime="torch", device=settings.device, state=f"{UNKNOWN}{bare}")
    return Preview(
        settings.source,
        kind=kind,
        runtime=manifest.runtime,
        device="cpu",
        precision=manifest.precision,
        dimensions=None if kind == "reranker" else manifest.network.dimensions,
        max_tokens=manifest.network.max_tokens,
        fidelity=round(manifest.fidelity, 6),
        bytes=num_bytes,
        nearest_kept=None if manifest.nearest_kept is None else round(manifest.nearest_kept, 4),
        state=("compiled" if manifest.runtime == "openvino" else "measured") + bare,
        fallback=manifest.fallback or None,
    )
