"""The real model, loaded once, and small ones of other shapes, made on the spot."""

import atexit
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from gateway.config import EngineSettings, LimitSettings
from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Inputs
from gateway.engine.artifact import ArtifactStore
from gateway.engine.compiler import CompileProcess
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.runtime import artifact_for
from gateway.engine.settings import LocalSettings
from gateway.errors import Overloaded
from gateway.metrics import Metrics
from gateway.testing.folder import folder_of

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


# Compiled models of this run, kept among its tests: each takes ten seconds to make.
DATA = Path(tempfile.mkdtemp(prefix="gateway-tests-"))
atexit.register(shutil.rmtree, DATA, ignore_errors=True)


def local_of(source, *, engine=None, limits=None, data_dir=DATA, **settings):
    engine = engine or EngineSettings(warmup_seconds=0)
    context = BackendContext("m", limits or LimitSettings(), engine, Metrics().of_model("m"), data_dir)
    return LocalEmbedder(LocalSettings(source=str(source), download=False, **settings), context)


def inputs_of(*texts, **more):
    return Inputs(list(texts), is_array=True, caller="a", deadline=time.monotonic() + 60, **more)


async def embedded(local, *texts, **more):
    """The rows of some texts, and what was prepared."""
    prepared = await local.prepare(inputs_of(*texts, **more))
    return (await local.embed(prepared)).rows, prepared


@pytest.fixture(scope="session")
def reference():
    """sentence-transformers itself, float32 on the CPU."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder_of(MINILM, download=False)), device="cpu", local_files_only=True)


def unload(local):
    local.batcher.close(Overloaded())
    for device in local.devices:
        device.join(5)
    local.pool.shutdown()


@pytest.fixture(scope="session", params=["openvino", "torch"])
def loaded(request):
    """MiniLM in float32 as an embedder, through either runtime, loaded once for all tests; each test's loop may await it."""
    local = local_of(MINILM, runtime=request.param, precision="float32")
    local.load()
    yield local
    unload(local)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    """A BERT of two layers with random weights, CLS pooling, no Normalize and two prompts, as sentence-transformers saves it."""
    from gateway.testing.small_model import save_small_model

    return save_small_model(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def place(small_model) -> Path:
    """Where the small model lies compiled, in float32."""
    settings = LocalSettings(source=str(small_model), runtime="openvino", precision="float32", download=False)
    return artifact_for("m", settings, ArtifactStore(DATA / "models"), progress=lambda _: None, child=CompileProcess())
