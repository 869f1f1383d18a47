"""Sparse encoders (SPLADE): served as SparseEncoder's `encode` weighs terms, the same terms chosen."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder

from gateway.embedding import embedder as embedding_module
from gateway.embedding.sparse import dense_rows
from gateway.engine import device as device_module
from gateway.engine.encoder import CPU_LOGITS, NetworkInfo, Window, max_batch_tokens
from gateway.engine.fidelity import PROBES, cosines
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.torch_loader import load_encoder
from gateway.engine.torch_sparse_encoder import TorchSparseEncoder
from gateway.errors import InvalidValue, OperatorError
from gateway.testing.architectures import MAX_TOKENS, TEXTS
from gateway.testing.model_folders import edit
from gateway.testing.sparse_encoders import sparse_encoder_of
from gateway.tests.engine.conftest import inputs_of, local_of, unload

LONG = "the red server and one two three four five six seven words of a long text " * 40


def encoded(folder, texts):
    """The weights of `SparseEncoder.encode`, each text alone: shape (n, terms)."""
    model = SparseEncoder(str(folder), device="cpu", local_files_only=True)
    rows = [model.encode([text], convert_to_sparse_tensor=False, show_progress_bar=False) for text in texts]
    return torch.cat(rows).numpy()


def assert_same(rows, expected):
    """The same weights, and the same terms chosen. A logit at 0 may fall on either side by rounding: weights below 1e-5 may."""
    np.testing.assert_allclose(rows, expected, atol=2e-5, rtol=1e-4)
    chosen = (rows > 0) ^ (expected > 0)
    assert not (np.maximum(rows, expected)[chosen] > 1e-5).any()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sparse_encoder_of("bert", tmp_path_factory.mktemp("sparse"), prompts={"query": "red: "})


@pytest.fixture(scope="module")
def local(folder, tmp_path_factory):
    local = local_of(folder, runtime="openvino", precision="float32", data_dir=tmp_path_factory.mktemp("data"))
    local.load()
    yield local
    unload(local)


async def weighed(local, *texts, **more):
    """The dense weights of some texts, shape (n, terms)."""
    vectors = await local.embed(await local.prepare(inputs_of(*texts, **more)))
    return dense_rows(vectors, local.describe())


@pytest.mark.parametrize(
    ("kind", "pooling", "activation"),
    [("bert", "max", "log1p_relu"), ("distilbert", "sum", "relu"), ("roberta", "max", "relu"), ("modernbert", "max", "relu")],
)
def test_every_pooling_and_architecture_gives_encodes_weights_in_a_mixed_batch(kind, pooling, activation, tmp_path):
    folder = sparse_encoder_of(kind, tmp_path, pooling=pooling, activation=activation)
    encoder = load_encoder(folder, device="cpu", precision="float32", threads=0)
    assert isinstance(encoder, TorchSparseEncoder)
    assert (encoder.info.network.kind, encoder.info.network.term_join) == ("sparse_encoder", pooling)
    tokenizer = Tokenizer(encoder.info.tokenizer_json)
    texts = PROBES[3:12]
    ids = [tokenizer.fast.encode(text, add_special_tokens=False).ids for text in texts]
    rows = encoder.embed([Window(tokenizer.with_special(each)) for each in ids])
    assert_same(rows, encoded(folder, texts))
    assert 0.01 < (rows > 0).mean() < 0.5  # else any choice of terms would do


async def test_a_text_has_encodes_weights_and_terms_once_compiled(local, folder):
    await local.prove(local.proof)
    about = local.describe()
    assert (about.kind, about.row_width, about.dimensions) == ("sparse_encoder", 2, local.info.network.dimensions)
    assert_same(await weighed(local, *PROBES[3:12]), encoded(folder, PROBES[3:12]))
    assert about.fidelity >= 0.99999


async def test_weights_are_not_normalised_whatever_the_request_says(local):
    np.testing.assert_array_equal(await weighed(local, *TEXTS, normalize=True), await weighed(local, *TEXTS, normalize=False))


async def test_a_prompt_is_put_before_the_text(local, folder):
    assert_same(await weighed(local, "server", input_type="query"), encoded(folder, ["red: server"]))


async def test_a_long_text_is_the_maximum_of_its_windows(local):
    whole = (await weighed(local, LONG))[0]
    prepared = await local.prepare(inputs_of(LONG))
    assert prepared.is_long == [True]
    windows = local.devices[0].encoder.embed(prepared.work.windows)
    assert len(windows) > 2
    np.testing.assert_allclose(whole, windows.max(axis=0), atol=1e-5)
    assert_same(await weighed(local, LONG, long_input="end"), windows[:1])


async def test_a_text_may_have_no_weight_and_a_long_one_is_the_sum_of_its_windows_where_tokens_are_summed(tmp_path):
    local = local_of(sparse_encoder_of("bert", tmp_path, pooling="sum"), runtime="torch", data_dir=tmp_path / "data")
    await local.start()
    windows = local.devices[0].encoder.embed((await local.prepare(inputs_of(LONG))).work.windows)
    np.testing.assert_allclose((await weighed(local, LONG))[0], windows.sum(axis=0), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        local.devices[0].encoder.pipeline.transformer.model.get_output_embeddings().bias -= 1e6
    vectors = await local.embed(await local.prepare(inputs_of("the red server", "a")))
    assert (vectors.row_counts, vectors.rows.shape) == ([0, 0], (0, 2))
    await local.close()


async def test_a_request_with_too_many_weights_is_refused_before_they_fill_the_memory(local, monkeypatch):
    monkeypatch.setattr(device_module, "MAX_NUMBERS", 100)
    with pytest.raises(InvalidValue, match="Send fewer texts"):
        await weighed(local, *PROBES)
    monkeypatch.setattr(device_module, "MAX_NUMBERS", embedding_module.MAX_NUMBERS)
    assert (await weighed(local, "a")).any()


def test_a_batchs_logits_are_bounded():
    bert = NetworkInfo(kind="sparse_encoder", dimensions=30_522, max_tokens=512, is_normalized=False)
    assert max_batch_tokens(bert, 512, max_logits=CPU_LOGITS) == 512
    wide = NetworkInfo(kind="sparse_encoder", dimensions=250_002, max_tokens=512, is_normalized=False)
    assert max_batch_tokens(wide, 512, max_logits=CPU_LOGITS) == 134
    dense = NetworkInfo(dimensions=250_002, max_tokens=512, is_normalized=False)
    assert max_batch_tokens(dense, 512, max_logits=CPU_LOGITS) == 512


def legacy(folder):
    """As sentence-transformers 5.0 saved SPLADE models, and naver's are on the hub."""
    modules = json.loads((folder / "modules.json").read_text())
    for module, name in zip(modules, ("MLMTransformer", "SpladePooling"), strict=True):
        module["type"] = f"sentence_transformers.sparse_encoder.models.{name}"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_TOKENS, "do_lower_case": False}))


def test_a_folder_of_an_older_release_is_served(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "old")
    legacy(tmp_path / "old")
    encoder = load_encoder(tmp_path / "old", device="cpu", precision="float32", threads=0)
    window = [Window([2, 9, 8, 3])]
    np.testing.assert_array_equal(
        encoder.embed(window), load_encoder(folder, device="cpu", precision="float32", threads=0).embed(window)
    )


def test_a_head_that_is_not_in_the_weights_is_refused_by_name(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "headless")
    weights = load_file(tmp_path / "headless" / "model.safetensors")
    del weights["cls.predictions.transform.dense.weight"]
    save_file(weights, tmp_path / "headless" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OperatorError, match=r"cls\.predictions\.transform\.dense\.weight"):
        load_encoder(tmp_path / "headless", device="cpu", precision="float32", threads=0)


def added(*types):
    def change(folder):
        modules = json.loads((folder / "modules.json").read_text())
        modules += [{"idx": 9, "name": "9", "path": "", "type": name} for name in types]
        (folder / "modules.json").write_text(json.dumps(modules))

    return change


REFUSED = {
    "another module behind": (added("sentence_transformers.sentence_transformer.modules.Normalize"), "Normalize, which is not"),
    "CSR": (added("sentence_transformers.sparse_encoder.modules.SparseAutoEncoder"), "SparseAutoEncoder, which is not"),
    "no inference for queries": (
        added("sentence_transformers.sparse_encoder.modules.SparseStaticEmbedding"),
        "without inference for queries",
    ),
    "a bound of terms": (lambda folder: edit(folder / "config_sentence_transformers.json", max_active_dims=64), "max_active_dims"),
    "no logits": (
        lambda folder: edit(folder / "sentence_bert_config.json", transformer_task="feature-extraction"),
        "where a masked-LM head's logits belong",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_not_served_is_refused_by_name(case, folder, tmp_path):
    change, words = case
    shutil.copytree(folder, tmp_path / "other")
    change(tmp_path / "other")
    with pytest.raises(OperatorError, match=words):
        load_encoder(tmp_path / "other", device="cpu", precision="float32", threads=0)


def test_two_precisions_choose_terms_that_are_near(folder):
    window = [Window([2, *range(5, 40), 3])]
    rows = [load_encoder(folder, device="cpu", precision=each, threads=0).embed(window) for each in ("float32", "bfloat16")]
    assert cosines(*rows)[0] > 0.995
