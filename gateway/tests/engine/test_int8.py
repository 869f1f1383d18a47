"""Models in 8 bits: quantised from calibration texts, judged by others, told apart by fingerprint, refused elsewhere."""

import asyncio
import io
import json
import random
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest

from gateway.embedding.fingerprint import changes
from gateway.engine import artifact, backend, compiler, fidelity, int8_build, runtime
from gateway.engine.artifact import ArtifactStore
from gateway.engine.calibration_texts import MIN_TEXTS, ODD_TEXTS, built_in_texts, read_texts
from gateway.engine.compiler import CompileJob, CompileProcess
from gateway.engine.embedder import fingerprint_of
from gateway.engine.fidelity import Unfaithful, cosines
from gateway.engine.identity import identity_of
from gateway.engine.int8 import SLOW, multiplies_int8, refuse_int8_of
from gateway.engine.rounding import Moments, quantize_input, round_linear
from gateway.engine.settings import LocalSettings, refuse_settings_of_embedders
from gateway.errors import ConfigurationError, OperatorError
from gateway.testing.small_model import WORDS
from gateway.tests.engine.conftest import embedded, local_of, unload


def test_second_order_rounding_loses_less_than_plain_rounding():
    rng = np.random.default_rng(3)
    mixed = rng.normal(size=(2000, 8)).astype(np.float32) @ rng.normal(size=(8, 64)).astype(np.float32)
    inputs = mixed + 0.05 * rng.normal(size=mixed.shape).astype(np.float32) + 1
    weights = rng.normal(size=(48, 64)).astype(np.float32)
    moments = Moments(quantize_input(inputs.min(axis=0), inputs.max(axis=0)))
    moments.add(inputs)
    [rounded, _] = round_linear([weights, weights[:5]], moments)
    codes, expected = moments.scales.codes(inputs), inputs @ weights.T

    def loss(weight_codes, bias):
        return float(((codes @ (weight_codes * rounded.step[:, None]).T + bias - expected) ** 2).mean())

    plain = np.rint(weights * moments.scales.step / rounded.step[:, None])
    assert np.abs(rounded.codes).max() <= 127
    assert loss(rounded.codes, rounded.bias) < 0.5 * loss(plain, weights @ moments.scales.lowest)
    means = codes.mean(axis=0) @ (rounded.codes * rounded.step[:, None]).T + rounded.bias
    np.testing.assert_allclose(means, expected.mean(axis=0), atol=1e-3)


def test_an_input_outside_the_calibrated_range_is_cut_to_it():
    scales = quantize_input(np.zeros(4), np.ones(4))
    assert scales.codes(np.array([[-9, 0, 1, 9]], dtype=np.float32)).tolist() == [[0, 0, 255, 255]]


def test_held_out_texts_do_not_calibrate():
    texts = built_in_texts()
    assert not set(texts.calibrating) & set(texts.held_out)
    assert len(texts.held_out) > 150
    assert {*texts.texts, *ODD_TEXTS}.isdisjoint(fidelity.PROBES)


LOW = {
    "int8": 0.3,
    "int8-fast": 0.3,
}  # the vectors of random weights are all alike, so which are nearest is a matter of the last bits


def texts_file(path, seed):
    """160 texts of words that the small model knows."""
    chance = random.Random(seed)
    path.write_text("".join(" ".join(chance.choices(WORDS, k=chance.randint(3, 12))) + "\n" for _ in range(160)))
    return path


def quantise(model, folder, *, precision, texts):
    """Compiles in this process, which has torch already. Returns the steps."""
    said = io.StringIO()
    with redirect_stdout(said):
        compiler.run(CompileJob(str(model), str(model), precision, str(folder), calibrate=str(texts)))
    return [json.loads(line)["step"] for line in said.getvalue().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def quantised(small_model, tmp_path_factory):
    """The small model's artifacts in both precisions, calibrated by texts of its own words."""
    folder = tmp_path_factory.mktemp("int8")
    texts = texts_file(folder / "texts", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_build, "MIN_KEPT", LOW)
        for precision in ("int8", "int8-fast"):
            steps = quantise(small_model, folder / "models", precision=precision, texts=texts)
            assert steps == ["loading", "converting", "quantising", "measuring", "writing"]
    return ArtifactStore(folder / "models")


def digest_of(quantised):
    return read_texts(quantised.folder.parent / "texts").digest


def manifest_of(quantised, small_model, precision):
    path = quantised.path(identity_of(small_model), precision)
    return artifact.read(path), (path / artifact.NETWORK).read_text()


def test_the_network_multiplies_bytes_and_the_manifest_says_what_it_loses(quantised, small_model):
    for precision, fewest in (("int8", 1), ("int8-fast", 8)):
        manifest, network = manifest_of(quantised, small_model, precision)
        assert network.count('type="FakeQuantize"') >= fewest
        assert manifest.precision == precision
        assert manifest.calibration == digest_of(quantised)
        assert fidelity.min_cosine(precision) <= manifest.fidelity < 1
        assert LOW[precision] <= manifest.nearest_kept <= 1
    assert network.count('element_type="i8"') >= 12
    slow, fast = (manifest_of(quantised, small_model, each)[1].count("FakeQuantize") for each in ("int8", "int8-fast"))
    assert slow < fast


async def test_a_model_in_int8_serves_near_vectors_under_a_fingerprint_of_its_own(quantised, small_model):
    data = quantised.folder.parent
    fast = local_of(small_model, precision="int8-fast", data_dir=data)
    exact = local_of(small_model, precision="float32", data_dir=data)
    for local in (fast, exact):
        await local.start()
    texts = ["the red server", "a long text of the model", "we", "the vector is on it and you " * 3]
    rows, _ = await embedded(fast, *texts)
    others, _ = await embedded(exact, *texts)
    assert cosines(rows, others).min() > 0.95
    assert np.abs(rows - others).max() > 1e-5
    about = fast.describe()
    assert about.precision == "int8-fast"
    assert about.fingerprint.endswith(f".openvino-int8-fast-{digest_of(quantised)}")
    assert about.nearest_kept == manifest_of(quantised, small_model, "int8-fast")[0].nearest_kept
    assert exact.describe().nearest_kept is None
    found = exact.from_fingerprint(about.fingerprint)
    assert found.describe().precision == "int8-fast"
    for local in (found, fast, exact):
        await asyncio.to_thread(unload, local)


def test_the_preview_shows_what_is_kept(quantised, small_model):
    preview = backend.known(LocalSettings(source=str(small_model), precision="int8"), quantised)
    assert preview.precision == "int8"
    assert preview.nearest_kept == round(manifest_of(quantised, small_model, "int8")[0].nearest_kept, 4)
    assert (SLOW in preview.state) is not multiplies_int8()


@pytest.mark.parametrize(
    ("flags", "is_fast"),
    [("avx2 fma avx_vnni", True), ("avx512_vnni", True), ("amx_bf16 amx_int8", True), ("avx2 fma avx512f", False), ("", False)],
)
def test_a_cpu_without_vnni_or_amx_is_known(tmp_path, flags, is_fast):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"flags\t: fpu {flags}\n")
    assert multiplies_int8(tmp_path) is is_fast


def test_other_texts_calibrate_another_model_under_another_fingerprint(quantised, small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(int8_build, "MIN_KEPT", LOW)
    texts = texts_file(tmp_path / "texts", 2)
    before, _ = manifest_of(quantised, small_model, "int8-fast")
    artifacts = ArtifactStore(tmp_path / "models")
    quantise(small_model, artifacts.folder, precision="int8-fast", texts=texts)
    after, _ = manifest_of(artifacts, small_model, "int8-fast")
    assert after.calibration == read_texts(texts).digest != before.calibration
    settings = LocalSettings(source=str(small_model), precision="int8-fast")
    prints = [
        fingerprint_of(
            each.identity, each.network, settings, runtime="openvino", precision=each.precision, calibration=each.calibration
        )
        for each in (before, after)
    ]
    assert changes(*map(str, prints)) == ["runtime or precision"]
    place = runtime.artifact_for("m", settings, artifacts, progress=print, child=CompileProcess())
    assert artifact.read(place) == after  # a later start takes it as it is


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"", "has 0 texts, and calibrating takes at least"),
        (b"one text\n" * 1000, "has 1 texts"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_calibration_file_of_no_use_is_named(tmp_path, content, words):
    path = tmp_path / "texts"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OperatorError, match=words) as caught:
        read_texts(path)
    assert str(path) in str(caught.value)


def test_lines_of_a_calibration_file_are_taken_in_any_order_once(tmp_path):
    lines = [f"text number {number}" for number in range(MIN_TEXTS)]
    (tmp_path / "a").write_text("\n".join(lines))
    (tmp_path / "b").write_text("\r\n\r\n".join([*reversed(lines), lines[3]]))
    assert read_texts(tmp_path / "a") == read_texts(tmp_path / "b")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "cuda"}, "is for the CPU, through OpenVINO: device is 'cuda'"),
        ({"device": "cuda:1", "runtime": "openvino"}, "runtime 'openvino' is for the CPU"),
        ({"runtime": "torch"}, "runtime 'torch'"),
    ],
)
@pytest.mark.parametrize("precision", ["int8", "int8-fast"])
def test_other_devices_and_runtimes_are_refused_by_name(settings, words, precision):
    with pytest.raises(ConfigurationError, match=words):
        runtime.compiles(LocalSettings(source="m", precision=precision, **settings))


def test_a_machine_with_cuda_is_refused_until_the_row_says_cpu(monkeypatch):
    monkeypatch.setattr(runtime, "_seems_to_have_cuda", lambda: True)
    with pytest.raises(ConfigurationError, match="this machine has CUDA"):
        runtime.compiles(LocalSettings(source="m", precision="int8"))
    assert runtime.compiles(LocalSettings(source="m", precision="int8", device="cpu"))


def test_auto_never_chooses_int8():
    assert runtime.effective_precision(LocalSettings(source="m")) in {"bfloat16", "float32"}


def context_of(tmp_path, **more):
    return replace(local_of("m", data_dir=tmp_path).context, **more)


def test_texts_to_calibrate_are_refused_for_other_precisions(tmp_path):
    context = context_of(tmp_path, calibrate=tmp_path / "texts")
    with pytest.raises(ConfigurationError, match="for the precisions int8 and int8-fast, and this model's is 'auto'"):
        backend.compiled(LocalSettings(source="m"), context, lambda *_, **__: None)


def test_a_model_that_loses_too_much_is_refused_and_not_served_in_another_precision(small_model, tmp_path, monkeypatch):
    monkeypatch.setitem(fidelity.MIN_COSINES, "int8-fast", 1.0)
    texts = texts_file(tmp_path / "texts", 3)
    with pytest.raises(Unfaithful, match=r"openvino in int8-fast is not faithful, its worst cosine is .*precision = 'auto'"):
        quantise(small_model, tmp_path / "models", precision="int8-fast", texts=texts)
    assert list(ArtifactStore(tmp_path / "models").all()) == []


def test_too_few_of_the_ten_nearest_are_a_reason():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(40, 8)).astype(np.float32)
    other = rng.normal(size=(40, 8)).astype(np.float32)
    assert int8_build.nearest_kept(rows, 3 * rows) == 1
    assert int8_build.nearest_kept(rows, other) < 0.5


def test_a_reranker_is_refused_by_name_before_it_is_compiled():
    with pytest.raises(
        ConfigurationError, match="precision = 'int8': it is for embedders on the CPU, and this model is a reranker"
    ):
        refuse_settings_of_embedders(LocalSettings(source="m", precision="int8"), "reranker")
    with pytest.raises(ConfigurationError, match="this model is a sparse encoder"):
        refuse_int8_of("sparse_encoder", "int8-fast")
