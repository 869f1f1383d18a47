"""Static models are served by numpy alone, with the vectors of sentence-transformers' `encode` or of model2vec's."""

import asyncio
import json
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from gateway.config import LimitSettings
from gateway.engine import compiler
from gateway.engine.compiler import CompileJob
from gateway.engine.encoder import Window
from gateway.engine.fidelity import cosines
from gateway.engine.kind import kind_of
from gateway.engine.static_encoder import StaticEncoder
from gateway.engine.static_model import UNLIMITED_TOKENS, TokenTable, is_static, read_static_model
from gateway.errors import ConfigurationError, InputTooLong, InvalidValue, OperatorError, Unembeddable
from gateway.testing.architectures import TEXTS, trained
from gateway.testing.static_models import DIMENSIONS, model2vec_rows, save_model2vec, save_static
from gateway.tests.engine.conftest import embedded, inputs_of, local_of

LONG = "word the red server " * 600
ALL = [*TEXTS, LONG]


async def started(folder, **more):
    """A served model, measured in this process: the child would take seconds for its imports."""
    compiler.run(CompileJob(str(folder), str(folder), "numpy", str(folder.parent / "data" / "models")))
    local = local_of(folder, data_dir=folder.parent / "data", **more)
    await local.start()
    return local


def assert_near(rows, expected):
    """Torch sums long texts one vector after another in float32, and so loses a few digits of the last one."""
    np.testing.assert_allclose(rows[:-1], expected[:-1], atol=1e-5)
    np.testing.assert_allclose(rows, expected, atol=2e-4)
    assert cosines(rows, expected).min() > 0.9999999


SAVED = {
    "float32": {},
    "float16": {"dtype": torch.float16},
    "bfloat16": {"dtype": torch.bfloat16},
    "float64": {"dtype": torch.float64},
    "Normalize": {"normalize": True},
    "cut to the first dimensions": {"normalize": True, "truncate_dim": 8},
}


@pytest.mark.parametrize("options", SAVED.values(), ids=SAVED)
async def test_a_static_embedding_is_served_as_encode_embeds_it(options, tmp_path):
    folder = save_static(tmp_path / "model", **options)
    expected = SentenceTransformer(str(folder), device="cpu", local_files_only=True).float().encode(ALL)
    local = await started(folder)
    rows, _ = await embedded(local, *ALL, normalize=False)
    assert_near(rows, expected)
    told = local.describe()
    assert (told.runtime, told.device, told.precision, told.dimensions) == ("numpy", "cpu", "float32", expected.shape[1])
    assert told.fidelity > 0.99999
    assert told.max_tokens == UNLIMITED_TOKENS
    await local.close()


MODEL2VEC = {
    "float32": {},
    "float16": {"dtype": "float16"},
    "quantised vocabulary": {"num_clusters": 50},
    "quantised vocabulary, float16, no Normalize": {"num_clusters": 50, "dtype": "float16", "normalize": False},
}


@pytest.mark.parametrize("options", MODEL2VEC.values(), ids=MODEL2VEC)
async def test_a_model2vec_folder_with_modules_is_served_as_encode_embeds_it(options, tmp_path):
    folder = save_model2vec(tmp_path / "model", **options)
    expected = SentenceTransformer(str(folder), device="cpu", local_files_only=True).float().encode(ALL)
    local = await started(folder)
    rows, _ = await embedded(local, *ALL, normalize=False)
    assert_near(rows, expected)
    await local.close()


BARE = {
    "float32": {},
    "int8": {"dtype": "int8"},
    "quantised vocabulary, int8": {"num_clusters": 50, "dtype": "int8"},
    "no limit": {"max_length": None},
    "a limit of its own": {"max_length": 20},
}


@pytest.mark.parametrize("options", BARE.values(), ids=BARE)
async def test_a_bare_model2vec_folder_is_served_as_model2vec_embeds_it(options, tmp_path):
    """Without modules.json: unknown tokens are left out of the mean, and a text ends after max_length tokens."""
    folder = save_model2vec(tmp_path / "model", is_bare=True, **options)
    texts = ["the red server", "a", "Größe 你好 مرحبا 🙂 the server", "one two", "word " * 700]
    local = await started(folder)
    rows, prepared = await embedded(local, *texts, normalize=False, long_input="end")
    limit = options.get("max_length", 512)
    assert prepared.is_long[-1] is (limit is not None)
    assert local.describe().max_tokens == (limit or UNLIMITED_TOKENS)
    expected = model2vec_rows(folder, texts) if limit is not None else model2vec_rows(folder, [*texts[:-1], "word " * 500])
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    await local.close()


async def test_an_int8_table_that_sentence_transformers_cannot_load_is_served_all_the_same(tmp_path):
    folder = save_model2vec(tmp_path / "model", dtype="int8")
    local = await started(folder)
    rows, _ = await embedded(local, "the red server", "one two three")
    np.testing.assert_allclose(rows, model2vec_rows(folder, ["the red server", "one two three"]), atol=1e-5)
    assert local.info.tokenizer_json == ""
    await local.close()


async def test_a_truncation_of_its_tokenizer_is_the_limit(tmp_path):
    folder = save_static(tmp_path / "model", max_tokens=30)
    expected = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode([LONG, "a"])
    local = await started(folder)
    assert local.describe().max_tokens == 30
    rows, prepared = await embedded(local, LONG, "a", normalize=False, long_input="end")
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert prepared.is_long == [True, False]
    whole, _ = await embedded(local, LONG, "a", normalize=False, long_input="chunk")
    assert cosines(whole, expected)[0] < 0.999999
    with pytest.raises(InputTooLong):
        await local.prepare(inputs_of(LONG, long_input="error"))
    await local.close()


async def test_prompts_and_special_tokens(tmp_path):
    """A prompt is text before a text; the special tokens of the tokenizer's file are never in one."""
    folder = save_static(tmp_path / "model", prompts={"query": "one two: "}, default_prompt_name="query")
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    local = await started(folder, prompts={"document": "passage: "})
    for input_type, prompt in ((None, "one two: "), ("query", "one two: "), ("document", "passage: ")):
        rows, prepared = await embedded(local, *TEXTS, normalize=False, input_type=input_type)
        np.testing.assert_allclose(rows, model.encode(TEXTS, prompt=prompt), atol=1e-5)
    cls = trained("wordpiece").token_to_id("[CLS]")
    assert not any(cls in window.token_ids for window in prepared.work.windows)
    assert local.tokenizer.num_special == 0
    await local.close()


async def test_a_text_without_a_known_token_is_refused_and_the_others_are_served(tmp_path):
    folder = save_model2vec(tmp_path / "model", is_bare=True)
    local = await started(folder)
    with pytest.raises(InvalidValue, match="the model reads no token"):
        await local.prepare(inputs_of("the red server", " "))
    with pytest.raises(Unembeddable):
        await embedded(local, "the server", "ⴰ")
    await local.close()


async def test_texts_of_all_lengths_share_one_batch(tmp_path):
    local = await started(save_static(tmp_path / "model"))
    embedded_batches = []
    encoder = local.devices[0].encoder
    original = encoder.embed
    encoder.embed = lambda windows: embedded_batches.append(len(windows)) or original(windows)
    await embedded(local, *(["the red server"] * 40), *(["word " * 50] * 20), "a")
    assert embedded_batches == [61]
    await local.close()


def test_sums_do_not_depend_on_company_or_length():
    rng = np.random.default_rng(3)
    table = rng.standard_normal((500, 40)).astype(np.float32)
    lengths = [1, 2, 63, 64, 65, 5000, 9000, 7, 7, 0]
    windows = [Window(rng.integers(0, 500, length).tolist()) for length in lengths]
    for left_out in (None, 17):
        encoder = encoder_of(table, left_out=left_out)
        rows = encoder.embed(windows * 30)[: len(windows)]
        for window, row in zip(windows, rows, strict=True):
            ids = [each for each in window.token_ids if each != left_out]
            np.testing.assert_allclose(row, table[ids].astype(np.float64).mean(axis=0) if ids else np.zeros(40), atol=1e-5)


def encoder_of(table, **fields):
    return StaticEncoder(replace(STUB_MODEL, table=TokenTable(table), **fields))


@pytest.fixture(autouse=True, scope="module")
def _stub_model(tmp_path_factory):
    global STUB_MODEL  # noqa: PLW0603 - made once, of a real folder
    model = read_static_model(save_static(tmp_path_factory.mktemp("stub") / "model"))
    STUB_MODEL = replace(model, network=type(model.network)(dimensions=40, max_tokens=10_000, is_normalized=False))


async def test_the_real_child_measures_it_once(tmp_path):
    folder = save_static(tmp_path / "model", normalize=True)
    local = local_of(folder, data_dir=tmp_path / "data")
    await local.start()
    assert local.describe().fidelity > 0.99999
    fingerprint = local.describe().fingerprint
    assert fingerprint.endswith(".numpy-float32")
    await local.close()
    [manifest] = (tmp_path / "data" / "models").glob("*/manifest.json")
    assert [path.name for path in manifest.parent.iterdir()] == ["manifest.json"]
    code = f"""
        import asyncio, sys
        from pathlib import Path
        from gateway.tests.engine.conftest import local_of
        local = local_of({str(folder)!r}, data_dir=Path({str(tmp_path / "data")!r}))
        asyncio.run(local.start())
        assert local.describe().fingerprint == {fingerprint!r}
        assert not {{"torch", "transformers", "sentence_transformers", "openvino"}} & set(sys.modules)
    """
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(code))
    assert await asyncio.wait_for(child.wait(), 60) == 0


async def test_without_torch_it_is_served_unmeasured(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.engine.static_runtime._can_measure", lambda: False)
    folder = save_static(tmp_path / "model")
    local = local_of(folder, data_dir=tmp_path / "data")
    await local.start()
    assert local.describe().fidelity is None
    rows, _ = await embedded(local, *TEXTS, normalize=False)
    np.testing.assert_allclose(rows, SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS), atol=1e-5)
    await local.close()


@pytest.mark.parametrize("setting", [{"runtime": "torch"}, {"runtime": "openvino"}, {"device": "cuda"}, {"precision": "bfloat16"}])
async def test_a_setting_of_networks_is_refused_by_name(setting, tmp_path):
    folder = save_static(tmp_path / "model")
    with pytest.raises(ConfigurationError, match=f"{next(iter(setting))} = .*static model"):
        await local_of(folder, **setting, data_dir=tmp_path / "data").start()


def with_dense(folder):
    modules = [StaticEmbedding(trained("wordpiece"), embedding_dim=8), Dense(8, 4)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


def with_mapping_beyond(folder):
    from safetensors.numpy import load_file, save_file

    save_model2vec(folder, num_clusters=50)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"mapping": tensors["mapping"] + 1}, folder / "model.safetensors")
    return folder


def with_bin_only(folder):
    save_static(folder)
    weights = next(folder.rglob("model.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))
    return folder


def cut_short(folder):
    save_static(folder)
    weights = next(folder.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    return folder


def without_tokenizer(folder):
    save_static(folder)
    next(folder.rglob("tokenizer.json")).unlink()
    return folder


def cut_at_the_beginning(folder):
    save_static(folder, max_tokens=9)
    path = next(folder.rglob("tokenizer.json"))
    told = json.loads(path.read_text())
    told["truncation"]["direction"] = "Left"
    path.write_text(json.dumps(told))
    return folder


UNFIT = {
    "a module behind the table": (with_dense, "module Dense behind its table"),
    "rows that are not there": (with_mapping_beyond, "do not fit together"),
    "a pickle": (with_bin_only, "not in model.safetensors"),
    "a file cut short": (cut_short, "cannot be read as safetensors"),
    "no tokenizer": (without_tokenizer, r"no tokenizer.json in it"),
    "texts cut at their beginning": (cut_at_the_beginning, "cuts long texts at their beginning"),
}


@pytest.mark.parametrize(("make", "message"), UNFIT.values(), ids=UNFIT)
def test_what_is_not_served_is_refused_in_one_line(make, message, tmp_path):
    folder = make(tmp_path / "model")
    assert is_static(folder)
    assert kind_of(folder) == "embedder"
    with pytest.raises(OperatorError, match=message) as caught:
        read_static_model(folder)
    assert "\n" not in str(caught.value)


def test_a_table_smaller_than_the_vocabulary_is_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = save_static(tmp_path / "model")
    weights = next(folder.rglob("model.safetensors"))
    save_file({"embedding.weight": load_file(weights)["embedding.weight"][:-5]}, weights)
    with pytest.raises(OperatorError, match="its tokenizer has tokens up to number"):
        compiler.run(CompileJob(str(folder), str(folder), "numpy", str(tmp_path / "models")))


async def test_limits_hold_for_a_model_without_a_limit_of_its_own(tmp_path):
    folder = save_static(tmp_path / "model")
    local = await started(folder, limits=LimitSettings(max_input_tokens=100))
    with pytest.raises(InputTooLong):
        await local.prepare(inputs_of(LONG))
    assert local.describe().dimensions == DIMENSIONS
    await local.close()
