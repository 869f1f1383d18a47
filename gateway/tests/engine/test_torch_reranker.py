"""Rerankers: compiled or through torch, their logits are CrossEncoder's, for pairs of every kind, alone and in padded company."""

import json
import threading

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from gateway.config import LimitSettings
from gateway.embedding.cache import seed_of
from gateway.embedding.embedder import Inputs
from gateway.embedding.vectors import best_windows, refuse_no_vector
from gateway.engine import openvino_encoder
from gateway.engine.encoder import Window, pad
from gateway.engine.fidelity import closeness, expected_of, judge, min_fidelity, probe_windows
from gateway.engine.pair_preprocessor import PairPreprocessor
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.torch_loader import load_encoder, load_faithful
from gateway.errors import InputTooLong, OperatorError, RequestTooLong, Unembeddable
from gateway.testing.rerankers import KINDS, causal_reranker_of, logits_of, reranker_of
from gateway.tests.engine.conftest import inputs_of, local_of
from gateway.tests.engine.test_fidelity import STORY, compiled_in, in_company

QUERY = "who had soup?"
FAMILIES = [*KINDS, "causal"]
HELD_OUT = [STORY[start : start + length] for start, length in ((0, 8), (40, 30), (90, 61), (200, 150), (260, 3), (0, 400))]


def saved(family, folder, **more):
    return causal_reranker_of(folder, **more) if family == "causal" else reranker_of(family, folder, **more)


def windows_of(info, documents, query=QUERY):
    preprocessor = PairPreprocessor(info.network, Tokenizer(info.tokenizer_json), rule="end", limits=LimitSettings())
    return preprocessor.prepare(inputs_of(*documents, query=query), threading.Event()).work.windows


def predicted(folder, documents, query=QUERY):
    return logits_of(CrossEncoder(str(folder), device="cpu"), [(query, document) for document in documents]).numpy()[:, None]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiled_reranker_gives_the_logits_of_predict(family, tmp_path):
    folder = saved(family, tmp_path)
    expected = predicted(folder, HELD_OUT)
    assert expected.std() > 0.5
    for precision in ("bfloat16", "float32") if family in {"bert", "causal"} else ("float32",):
        manifest, place = compiled_in(tmp_path, folder, precision)
        assert (manifest.runtime, manifest.network.kind, manifest.network.dimensions) == ("openvino", "reranker", 1)
        assert manifest.fidelity >= min_fidelity(manifest.precision, "reranker")
        [encoder] = openvino_encoder.load("m", place, manifest, threads=1, streams=1)
        for rows in in_company(encoder, windows_of(encoder.info, HELD_OUT)):
            assert closeness(rows, expected).min() >= min_fidelity(manifest.precision, "reranker")
            if manifest.precision == "float32":
                np.testing.assert_allclose(rows, expected, atol=1e-3)


@pytest.mark.parametrize("family", ["bert", "causal"])
def test_torch_gives_them_too(family, tmp_path):
    folder = saved(family, tmp_path)
    faithful = load_faithful(folder, devices=["cpu"], precision="float32", threads=0, seconds=2)
    assert faithful.fidelity >= 0.9999
    [encoder] = faithful.encoders
    for rows in in_company(encoder, windows_of(encoder.info, HELD_OUT)):
        np.testing.assert_allclose(rows, predicted(folder, HELD_OUT), atol=1e-3)


def test_a_network_that_ignores_token_types_is_not_faithful(tmp_path):
    reference = load_encoder(reranker_of("bert", tmp_path), device="cpu", precision="float32", threads=0)
    expected = expected_of(reference, Tokenizer(reference.info.tokenizer_json), seconds=0.5)
    assert judge([reference], expected)[1] == ""
    whole = reference.pipeline
    reference.pipeline = lambda ids, mask, types: whole(ids, mask, torch.zeros_like(types))
    fidelity, reason = judge([reference], expected)
    assert fidelity < 0.999
    assert "worst closeness of a score" in reason


def test_closeness_bounds_the_difference_of_scores_and_sees_errors_among_large_logits():
    chance = np.random.default_rng(1)
    logits, others = (chance.normal(0, 8, (10_000, 1)).astype(np.float32) for _ in range(2))
    scores = 1 / (1 + np.exp(-np.hstack([logits, others]).astype(np.float64)))
    assert (1 - closeness(logits, others) >= np.abs(scores[:, 0] - scores[:, 1]) - 1e-9).all()
    assert closeness(np.float32([[-50]]), np.float32([[-11]]))[0] < 0
    assert closeness(np.float32([[np.nan]]), np.float32([[1]]))[0] == -1
    assert closeness(np.float32([[0]]), np.float32([[0]]))[0] == 1


def test_the_network_reads_zeros_at_the_query_and_ones_at_the_document(tmp_path):
    encoder = load_encoder(reranker_of("bert", tmp_path), device="cpu", precision="float32", threads=0)
    windows = [Window([2, 7, 3, 8, 9, 3], num_query_tokens=3), Window([2, 7, 3, 3], num_query_tokens=3)]
    assert [array.tolist() for array in pad(windows, length=6, network=encoder.info.network)][2] == [
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 0, 0],
    ]
    probes = probe_windows(encoder.info.network, Tokenizer(encoder.info.tokenizer_json))
    assert all(0 < window.num_query_tokens < len(window) for window in probes)


@pytest.mark.parametrize("dropped", ["classifier.weight", "bert.pooler.dense.weight", "bert.encoder.layer.1.output.dense.weight"])
def test_a_head_of_random_numbers_is_refused_by_name(dropped, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = reranker_of("bert", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors[dropped]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OperatorError, match=f"{dropped} is missing"):
        load_encoder(folder, device="cpu", precision="float32", threads=0)


def test_a_chat_template_without_a_place_for_the_document_is_refused(tmp_path):
    folder = causal_reranker_of(tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(OperatorError, match="document"):
        load_encoder(folder, device="cpu", precision="float32", threads=0)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A small reranker's folder, served through torch: no compiling."""
    return reranker_of("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def loaded(bert, tmp_path_factory):
    local = local_of(bert, runtime="torch", precision="float32", data_dir=tmp_path_factory.mktemp("data"))
    local.load()
    yield local
    local.stop()


async def scores_of(local, *documents, query=QUERY, **more):
    prepared = await local.prepare(inputs_of(*documents, query=query, **more))
    return (await local.embed(prepared)).rows, prepared


async def test_it_is_served_as_a_reranker_and_proved(loaded, bert):
    await loaded.prove(loaded.proof)
    about = loaded.describe()
    assert (about.kind, about.dimensions, about.max_tokens, about.takes_instruction) == ("reranker", 1, 192, False)
    assert about.fidelity >= min_fidelity("float32", "reranker")
    rows, prepared = await scores_of(loaded, *HELD_OUT[:5])
    np.testing.assert_allclose(rows, predicted(bert, HELD_OUT[:5]), atol=1e-3)
    tokenizer = CrossEncoder(str(bert), device="cpu").tokenizer
    assert prepared.token_counts == [len(tokenizer(QUERY, document)["input_ids"]) for document in HELD_OUT[:5]]
    assert prepared.is_long == [False] * 5


async def test_the_best_window_of_a_long_document_counts(loaded, bert):
    tokenizer = CrossEncoder(str(bert), device="cpu").tokenizer
    long = STORY * 3
    [row], prepared = await scores_of(loaded, long)
    assert (prepared.rule, prepared.is_long) == ("chunk", [True])
    assert prepared.token_counts == [len(tokenizer(QUERY, long, truncation=False)["input_ids"])]
    windows = prepared.work.windows
    head = tokenizer(QUERY)["input_ids"]
    assert len(windows) > 2
    assert all(window.token_ids[: len(head)] == head and len(window) <= 192 for window in windows)
    content = [token for window in windows for token in window.token_ids[len(head) : -1]]
    assert content == tokenizer(long, add_special_tokens=False)["input_ids"]
    each = np.concatenate([loaded.devices[0].encoder.embed([window]) for window in windows])
    np.testing.assert_allclose(row, each.max(axis=0), atol=1e-4)
    [cut], _ = await scores_of(loaded, long, long_input="end")
    np.testing.assert_allclose(cut, predicted(bert, [long])[0], atol=1e-3)
    with pytest.raises(InputTooLong) as caught:
        await scores_of(loaded, "short", long, long_input="error", field="documents")
    assert "documents[1]" in caught.value.message


async def test_a_query_that_leaves_no_room_is_refused_by_name(loaded):
    for query, documents, rule in (
        (STORY, ["a"], None),
        (STORY, ["a"], "end"),
        (STORY[:200], ["short", STORY * 2], "chunk"),
        (STORY * 100_000, ["a"], None),
    ):
        with pytest.raises(InputTooLong) as caught:
            await scores_of(loaded, *documents, query=query, long_input=rule)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "query")
        assert "'query'" in caught.value.message
    rows, _ = await scores_of(loaded, "short", query=STORY[:200])
    assert np.isfinite(rows).all()


async def test_a_documents_tokens_are_bounded_as_the_client_asks(loaded, bert):
    tokenizer = CrossEncoder(str(bert), device="cpu").tokenizer
    ids = tokenizer(STORY, add_special_tokens=False)["input_ids"][:10]
    rows, prepared = await scores_of(loaded, STORY, "a", max_document_tokens=10)
    assert prepared.work.windows[0].token_ids == [*tokenizer(QUERY)["input_ids"], *ids, tokenizer.sep_token_id]
    assert prepared.token_counts[0] == len(prepared.work.windows[0])
    assert prepared.is_long == [False, False]
    about = loaded.describe()
    bounds = [seed_of(inputs_of("a", query=QUERY, max_document_tokens=bound), about) for bound in (None, 10, 11)]
    assert len(set(bounds)) == 3
    assert rows.shape == (2, 1)


async def test_limits_hold_for_pairs(bert, tmp_path, loaded):
    limits = LimitSettings(max_input_tokens=40, max_request_tokens=100)
    preprocessor = PairPreprocessor(loaded.info.network, loaded.tokenizer, rule="end", limits=limits)
    with pytest.raises(InputTooLong, match="40"):
        preprocessor.prepare(inputs_of("a", STORY[:200], query=QUERY), threading.Event())
    with pytest.raises(RequestTooLong):
        preprocessor.prepare(inputs_of(*["a short one"] * 10, query=QUERY), threading.Event())
    with pytest.raises(InputTooLong):
        preprocessor.refuse_too_many_characters(inputs_of("a" * 40_000, query=QUERY))
    with pytest.raises(RequestTooLong):
        preprocessor.refuse_too_many_characters(inputs_of(*["a"] * 1000, query=QUERY))


def test_a_logit_of_zero_is_a_score_and_one_that_is_no_number_is_not():
    inputs = Inputs(["a", "b"], is_array=True, caller="", deadline=0, query="q", field="documents")
    refuse_no_vector(np.float32([[0], [1]]), inputs)
    with pytest.raises(Unembeddable, match=r"documents\[1\]"):
        refuse_no_vector(np.float32([[0], [np.nan]]), inputs)
    best = best_windows(np.float32([[1], [3], [2], [-5]]), counts=[3, 1])
    assert best.tolist() == [[3], [-5]]


async def test_a_head_of_zeros_is_served(tmp_path):
    def spoil(network):
        network.classifier.weight.zero_()
        network.classifier.bias.zero_()

    local = local_of(reranker_of("bert", tmp_path, spoil=spoil), runtime="torch", precision="float32", data_dir=tmp_path / "data")
    await local.start()
    rows, _ = await scores_of(local, "a", "b")
    assert rows.tolist() == [[0], [0]]
    await local.close()


def test_the_instruction_reaches_the_network(tmp_path):
    encoder = load_encoder(causal_reranker_of(tmp_path), device="cpu", precision="float32", threads=0)
    info = encoder.info
    preprocessor = PairPreprocessor(info.network, Tokenizer(info.tokenizer_json), rule="end", limits=LimitSettings())
    assert preprocessor.instruction_format
    prepared = preprocessor.prepare(inputs_of("d", query="q", instruction="Find poems"), threading.Event())
    model = CrossEncoder(str(tmp_path / "whole"), device="cpu")
    expected = logits_of(model, [("q", "d")], prompt="Find poems").numpy()
    np.testing.assert_allclose(encoder.embed(prepared.work.windows)[:, 0], expected, atol=1e-3)


def test_the_kind_is_in_the_manifest(bert, tmp_path):
    manifest, place = compiled_in(tmp_path, bert, "float32")
    stored = json.loads((place / "manifest.json").read_text())
    assert stored["network"]["kind"] == "reranker"
    assert stored["network"]["reads_token_types"] is True
    assert manifest.proof.read().window.num_query_tokens > 0
