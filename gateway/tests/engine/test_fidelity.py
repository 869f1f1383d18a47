"""Faithful vectors or none: what is measured, what a model falls back to, and what is refused. On texts that are not the probes."""

import json
from typing import get_args

import msgspec
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from gateway.embedding.embedder import ModelKind
from gateway.engine import artifact, compiler, openvino_encoder, runtime
from gateway.engine.artifact import ArtifactStore
from gateway.engine.encoder import Window
from gateway.engine.fidelity import (
    PROBES,
    Expected,
    batches,
    cosines,
    expected_of,
    judge,
    long_windows,
    min_cosine,
    probe_windows,
    worst_fidelity,
)
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.torch_encoder import TorchEncoder
from gateway.engine.torch_loader import load_faithful
from gateway.errors import OperatorError
from gateway.testing.architectures import KINDS, MAX_TOKENS, WINDOW, model_of
from gateway.testing.fakes import FakeEncoder
from gateway.testing.folder import folder_of
from gateway.tests.engine.conftest import MINILM, local_of, unload

DEPENDS_ON_COMPANY = {"fnet"}  # it mixes padding in, by design
SERVED = sorted(set(KINDS) - DEPENDS_ON_COMPANY)
STORY = (
    "The ferry left at nine with forty passengers, two dogs and a piano that nobody had booked. By noon the wind had turned; the "
    "captain, who had crossed this strait since 1987, wrote 'swell 2.5 m' into the log and had soup sent up. Éva répéta : « je "
    "n'ai pas peur », 船は揺れた, and somebody began to play. `for (i = 0; i < n; ++i) total += price[i] * 1.19;` was what the "
    "student by the window typed. Nothing of this is in any probe! Is it? Half past four: land, a lighthouse, 17 gulls, rain. "
)


def held_out(tokenizer, max_tokens):
    """Windows of 10 tokens to as many as the model reads, none of a probe's text."""
    ids = tokenizer.fast.encode(STORY * 40, add_special_tokens=False).ids
    room = max_tokens - tokenizer.num_special
    lengths = sorted({min(length, room) for length in (8, 14, 15, 17, 40, 61, 100, 150, room - 1, room)})
    return [Window(tokenizer.with_special(ids[5 * length : 6 * length])) for length in lengths]


def encoded(folder, windows):
    """What sentence-transformers itself gives for these token ids in float32, each alone and without padding."""
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    rows = []
    for window in windows:
        ids = torch.tensor([window.token_ids])
        with torch.inference_mode():
            rows.append(model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["sentence_embedding"].numpy()[0])
    return np.stack(rows)


def in_company(encoder, windows):
    """Alone; all together, mostly padded; each between the shortest and the longest."""
    yield np.concatenate([encoder.embed([window]) for window in windows])
    yield encoder.embed(windows)
    yield np.stack([encoder.embed([windows[0], window, windows[-1]])[1] for window in windows])


def compiled_in(tmp_path, folder, precision):
    """The manifest, and where it lies."""
    artifacts = ArtifactStore(tmp_path / f"shelf-{precision}")
    compiler.run(compiler.CompileJob(str(folder), "m", precision, str(artifacts.folder)))
    [place] = artifacts.folder.iterdir()
    return artifact.read(place), place


def assert_within(rows, expected, precision, *, least=None):
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.isfinite(rows).all()
    if precision == "float32":
        assert (np.abs(rows - expected) / lengths).max() <= 1e-5
    assert cosines(rows, expected).min() >= (least or min_cosine(precision))


@pytest.mark.parametrize("kind", SERVED)
def test_held_out_texts_of_every_architecture_alone_and_padded(kind, tmp_path):
    """A precision that is not faithful is not served: T5's bfloat16 falls back by itself."""
    folder = model_of(kind, tmp_path)
    for precision in ("bfloat16", "float32"):
        manifest, place = compiled_in(tmp_path, folder, precision)
        assert manifest.runtime == "openvino"
        assert manifest.fidelity >= min_cosine(manifest.precision)
        assert manifest.max_probe_tokens == MAX_TOKENS
        [encoder] = openvino_encoder.load("m", place, manifest, threads=1, streams=1)
        windows = held_out(Tokenizer(encoder.info.tokenizer_json), MAX_TOKENS)
        expected = encoded(folder, windows)
        for rows in in_company(encoder, windows):
            assert_within(rows, expected, manifest.precision)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_held_out_texts_through_minilm(precision, tmp_path):
    folder = folder_of(MINILM, download=False)
    local = local_of(MINILM, precision=precision, runtime="openvino")
    local.load()
    encoder = local.devices[0].encoder
    windows = held_out(local.tokenizer, local.info.network.max_tokens)
    assert {len(windows[0]), len(windows[-1])} == {10, 256}
    expected = encoded(folder, windows)
    for rows in in_company(encoder, windows):
        assert_within(rows, expected, precision, least=0.9999)
    unload(local)


@pytest.mark.parametrize("kind", ["modernbert", "gemma3", "mistral"])
def test_padding_longer_than_an_attention_window_is_no_nan(kind, tmp_path):
    """Rows of padding that see nothing were the softmax of nothing, and spread over the layers."""
    manifest, place = compiled_in(tmp_path, model_of(kind, tmp_path), "float32")
    [encoder] = openvino_encoder.load("m", place, manifest, threads=1, streams=1)
    rows = encoder.embed([Window([2, 5, 3]), Window([2, *[7] * (8 * WINDOW), 3])])
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(rows[0], encoder.embed([Window([2, 5, 3])])[0], atol=1e-5)


async def test_what_bfloat16_rounds_too_far_is_served_in_float32_and_says_so(tmp_path, capfd):
    folder = model_of("t5", tmp_path)
    local = local_of(folder, precision="bfloat16", runtime="openvino", data_dir=tmp_path)
    await local.start()
    about = local.describe()
    assert (about.runtime, about.precision) == ("openvino", "float32")
    assert about.fidelity >= min_cosine("float32")
    assert "openvino in bfloat16 is not faithful, its worst cosine is 0.9" in about.fallback
    assert "precision_fell_back" in "".join(capfd.readouterr())
    await local.close()


async def test_what_no_precision_of_openvino_gives_is_served_through_torch_and_not_compiled_again(tmp_path, monkeypatch):
    """Longformer's attention takes the shape it was traced with."""
    monkeypatch.setitem(KINDS, "longformer", LONGFORMER)
    folder = model_of("longformer", tmp_path)
    for number in range(2):
        local = local_of(folder, precision="float32", data_dir=tmp_path)
        await local.start()
        about = local.describe()
        assert (about.runtime, about.precision) == ("torch", "float32")
        assert about.fidelity > 0.99999
        assert "openvino in float32 cannot run it" in about.fallback
        assert (local.compile_process.process is None) == (number == 1)
        await local.close()
    insisting = local_of(folder, precision="float32", runtime="openvino", data_dir=tmp_path)
    with pytest.raises(OperatorError, match="OpenVINO does not give this model's vectors: openvino in float32 cannot run it"):
        await insisting.start()
    assert insisting.health().state == "failed"
    await insisting.close()


LONGFORMER = (
    "LongformerConfig", "LongformerModel",
    {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "attention_window": 16,
     "max_position_embeddings": 260, "pad_token_id": 0},
)  # fmt: skip


@pytest.mark.parametrize("runtime_name", ["auto", "openvino", "torch"])
async def test_a_model_whose_vectors_depend_on_their_company_is_refused_by_what_was_seen(runtime_name, tmp_path):
    local = local_of(model_of("fnet", tmp_path), precision="float32", runtime=runtime_name, data_dir=tmp_path)
    with pytest.raises(OperatorError, match=r"gives nothing to rely on.*torch in float32 is not faithful") as caught:
        await local.start()
    assert caught.value.category == "unfaithful"
    assert local.health().state == "failed"
    await local.close()


def all_nan(network):
    next(network.parameters()).fill_(float("nan"))


def all_zero(network):
    for parameter in network.parameters():
        parameter.zero_()


@pytest.mark.parametrize("spoil", [all_nan, all_zero])
@pytest.mark.parametrize("runtime_name", ["openvino", "torch"])
async def test_a_model_that_gives_nan_or_zeros_is_refused(spoil, runtime_name, tmp_path):
    folder = model_of("bert", tmp_path, spoil=spoil)
    local = local_of(folder, precision="float32", runtime=runtime_name, data_dir=tmp_path)
    with pytest.raises(OperatorError, match=r"gives nothing to rely on|not finite|cannot be served as"):
        await local.start()
    await local.close()


async def test_through_torch_on_a_cpu_fidelity_is_measured_once_and_kept(small_model, tmp_path, monkeypatch):
    first = local_of(small_model, runtime="torch", precision="bfloat16", data_dir=tmp_path)
    await first.start()
    [place] = (tmp_path / "models").iterdir()
    assert [path.name for path in place.iterdir()] == [artifact.MANIFEST]
    manifest = artifact.read(place)
    about = first.describe()
    assert (manifest.runtime, manifest.precision, manifest.fidelity) == ("torch", about.precision, about.fidelity)
    assert about.fidelity >= min_cosine(about.precision)
    await first.close()
    monkeypatch.setattr("gateway.engine.torch_loader.load_faithful", None)  # would fail if it were asked
    second = local_of(small_model, runtime="torch", precision="bfloat16", data_dir=tmp_path)
    await second.start()
    assert second.describe() == about
    assert runtime.known_artifact(second.settings, second.artifacts) == manifest
    await second.close()


async def test_where_it_cannot_be_kept_it_is_measured_again(small_model, tmp_path, capfd):
    (tmp_path / "models").write_text("a file where the shelf should be")
    local = local_of(small_model, runtime="torch", data_dir=tmp_path)
    await local.start()
    assert local.describe().fidelity > 0.99999
    assert "fidelity_not_kept" in "".join(capfd.readouterr())
    await local.close()


def overflowing(network):
    """As Gemma 3, T5 and Qwen3 do: values beyond 65,504 in one layer, which the norm after it brings back."""
    network.encoder.layer[-1].output.dense.weight.mul_(2e5)


@pytest.mark.parametrize(("asked", "used"), [("float16", "bfloat16"), ("bfloat16", "bfloat16"), ("float32", "float32")])
def test_a_model_that_overflows_in_float16_is_run_in_bfloat16(asked, used, tmp_path):
    """The same code as on CUDA, on this machine's CPU."""
    folder = model_of("bert", tmp_path, spoil=overflowing)
    faithful = load_faithful(folder, devices=["cpu"], precision=asked, threads=0)
    assert faithful.encoders[0].info.precision == used
    assert faithful.fidelity >= min_cosine(used)
    assert bool(faithful.fallback) == (asked != used)
    assert ("float16 is not faithful" in faithful.fallback) == (asked == "float16")


def test_in_half_precision_rotary_frequencies_and_t5_s_last_matrices_stay_in_float32(tmp_path):
    for kind, names in {"modernbert": "inv_freq", "qwen3": "inv_freq", "t5": ".wo."}.items():
        encoder = TorchEncoder(model_of(kind, tmp_path / kind), device="cpu", precision="float16", threads=0)
        network = encoder.model[0].auto_model
        kept = {name: tensor.dtype for name, tensor in [*network.named_buffers(), *network.named_parameters()] if names in name}
        assert set(kept.values()) == {torch.float32}, kind
        assert torch.float16 in {parameter.dtype for parameter in network.parameters()}


def test_every_device_is_measured(small_model):
    faithful = load_faithful(small_model, devices=["cpu", "cpu"], precision="float32", threads=0)
    assert len(faithful.encoders) == 2
    assert faithful.fidelity > 0.99999


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_auto_on_cuda_is_bfloat16_for_what_was_trained_so_or_overflows(name, tmp_path):
    from gateway.engine.precision import OVERFLOWING, half_precision

    def precision_of(**config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return half_precision(tmp_path)

    assert precision_of(model_type="bert") == "float16"
    assert precision_of(model_type="bert", **{name: "float32"}) == "float16"
    assert precision_of(model_type="bert", **{name: "bfloat16"}) == "bfloat16"
    assert precision_of(model_type="a", text_config={"model_type": "b", name: "bfloat16"}) == "bfloat16"
    for kind, reason in OVERFLOWING.items():
        assert precision_of(model_type=kind, **{name: "float32"}) == "bfloat16"
        assert reason
    (tmp_path / "config.json").unlink()
    assert half_precision(tmp_path) == "float16"
    (tmp_path / "0_Transformer").mkdir()
    (tmp_path / "0_Transformer" / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "modules.json").write_text('[{"idx": 0, "path": "0_Transformer"}]')
    assert half_precision(tmp_path) == "bfloat16"


def test_probes_reach_the_model_s_own_limit_and_mix_short_with_long(small_model, tmp_path):
    encoder = TorchEncoder(model_of("bert", tmp_path), device="cpu", precision="float32", threads=0)
    tokenizer = Tokenizer(encoder.info.tokenizer_json)
    assert len(probe_windows(encoder.info.network, tokenizer)) == len(PROBES)
    long = msgspec.structs.replace(encoder.info.network, max_tokens=3000)
    assert [len(window) for window in long_windows(long, tokenizer)] == [258, 514, 1026, 2050, 3000]
    expected = expected_of(encoder, tokenizer)
    assert expected.max_tokens == MAX_TOKENS
    ratios = [
        min(lengths) / max(lengths)
        for lengths in ([len(expected.windows[index]) for index in batch] for batch in batches(expected))
        if len(lengths) > 1
    ]
    assert min(ratios) < 0.05


def test_long_probes_stop_when_time_is_up(tmp_path):
    encoder = TorchEncoder(model_of("bert", tmp_path), device="cpu", precision="float32", threads=0)
    tokenizer = Tokenizer(encoder.info.tokenizer_json)
    expected = expected_of(encoder, tokenizer, seconds=0)
    assert len(expected.windows) == 1
    assert worst_fidelity(encoder, expected) > 0.99999


def test_nan_infinity_zeros_other_shapes_and_nothing_at_all_count_as_minus_one():
    encoder, window = FakeEncoder(), Window([1, 2])
    right = encoder.embed([window])[0]
    expected = Expected([window], [right], 1)
    assert worst_fidelity(encoder, expected) == pytest.approx(1)
    for bad in (np.nan, np.inf, 0.0):
        encoder.embed = lambda windows, bad=bad: np.full((len(windows), 4), bad, np.float32)
        assert worst_fidelity(encoder, expected) == -1
    encoder.embed = lambda windows: np.ones((len(windows), 5), np.float32)
    assert worst_fidelity(encoder, expected) == -1
    assert worst_fidelity(FakeEncoder(), Expected()) == -1


@pytest.mark.parametrize("kind", get_args(ModelKind))
def test_an_encoder_that_is_not_faithful_is_refused_with_its_measure_for_every_kind(kind):
    expected = Expected(kind=kind)
    encoder, window = FakeEncoder(), Window([1, 2])
    expected.add(window, -100 * encoder.embed([window])[0])
    fidelity, reason = judge([encoder], expected)
    assert fidelity < 0
    assert reason.startswith("fake in float32 is not faithful, its worst c")
