"""Models of other shapes, made on the spot: each served as sentence-transformers' `encode` embeds it."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from gateway.engine.fidelity import cosines
from gateway.errors import InvalidValue, OperatorError
from gateway.testing.architectures import TEXTS, trained
from gateway.tests.engine.conftest import embedded, inputs_of, local_of

HIDDEN = 32


def made(
    folder,
    *,
    tokenizer="wordpiece",
    pooling="mean",
    side="right",
    dense=False,
    normalize=False,
    include_prompt=True,
    special=True,
    **whole,
):
    torch.manual_seed(11)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=trained(tokenizer, special=special), model_max_length=64, padding_side=side, pad_token="[PAD]",
        unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip
    config = BertConfig(
        vocab_size=len(fast), hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    fast.save_pretrained(folder / "bert")
    modules = [
        Transformer(str(folder / "bert"), max_seq_length=64),
        Pooling(HIDDEN, pooling_mode=pooling, include_prompt=include_prompt),
    ]
    hidden = HIDDEN * (1 if isinstance(pooling, str) else len(pooling))
    modules += [Dense(hidden, 24)] if dense else []
    modules += [Normalize()] if normalize else []
    SentenceTransformer(modules=modules, device="cpu", **whole).save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


SHAPES = {
    "cls pooling": {"pooling": "cls"},
    "max pooling": {"pooling": "max"},
    "the last token, padded on the left": {"pooling": "lasttoken", "side": "left"},
    "a dense layer and Normalize": {"dense": True, "normalize": True},
    "a Unigram tokenizer": {"tokenizer": "unigram"},
    "a BPE tokenizer": {"tokenizer": "bpe"},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_it_is_served_as_encode_embeds_it(shape, tmp_path):
    folder = made(tmp_path, **shape)
    expected = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS, batch_size=1)
    for runtime in ("openvino", "torch"):
        local = local_of(folder, runtime=runtime, precision="float32", data_dir=tmp_path / "data")
        await local.start()
        rows, prepared = await embedded(local, *TEXTS, normalize=False, long_input="end")
        assert cosines(rows, expected).min() >= 0.99999
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        unit, _ = await embedded(local, *TEXTS, long_input="end")
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
        assert local.describe().dimensions == expected.shape[1]
        assert prepared.is_long[0] is False
        await local.close()


PROMPTS = {"query": "one two: ", "document": "the words of a passage, of some length: "}
LEFT_OUT = {
    "the mean": ({}, ("openvino", "torch")),
    "the first token, then a dense layer and Normalize": (
        {"pooling": "cls", "dense": True, "normalize": True},
        ("openvino", "torch"),
    ),
    "the last token, padded on the left": ({"pooling": "lasttoken", "side": "left"}, ("torch",)),
    "mean and maximum": ({"pooling": ("mean", "max")}, ("torch",)),
    "the mean, of a Unigram tokenizer": ({"tokenizer": "unigram"}, ("torch",)),
    "the mean, of a BPE tokenizer": ({"tokenizer": "bpe"}, ("torch",)),
}


@pytest.mark.parametrize(("shape", "runtimes"), LEFT_OUT.values(), ids=LEFT_OUT)
async def test_a_prompt_left_out_of_pooling(shape, runtimes, tmp_path):
    folder = made(tmp_path, include_prompt=False, prompts=PROMPTS, **shape)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    asked = (None, "query", "document")
    expected = [model.encode(TEXTS, prompt_name=name, batch_size=1) for name in asked]
    model.set_pooling_include_prompt(True)
    assert cosines(expected[2], model.encode(TEXTS, prompt_name="document")).min() < 0.9999  # or the test would prove nothing
    for runtime in runtimes:
        local = local_of(folder, runtime=runtime, precision="float32", data_dir=tmp_path / "data")
        await local.start()
        answers = [await embedded(local, *TEXTS, input_type=name, normalize=False, long_input="end") for name in asked]
        together = local.devices[0].encoder.embed([window for _, prepared in answers for window in prepared.work.windows])
        for rows in (np.concatenate([rows for rows, _ in answers]), together):
            assert cosines(rows, np.concatenate(expected)).min() >= 0.99999
            np.testing.assert_allclose(rows, np.concatenate(expected), atol=1e-5)
        assert local.describe().fidelity is None or local.describe().fidelity > 0.99999
        await local.close()


async def test_a_default_prompt_is_left_out_too(tmp_path):
    folder = made(tmp_path, include_prompt=False, prompts={"s2s": "one two: "}, default_prompt_name="s2s")
    expected = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS, batch_size=1)
    local = local_of(folder, runtime="torch", precision="float32")
    await local.start()
    rows, _ = await embedded(local, *TEXTS, normalize=False, long_input="end")
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    await local.close()


async def test_a_prompt_of_the_model_row_is_left_out_too(tmp_path):
    folder = made(tmp_path, include_prompt=False)
    prompt = "x" * 30 + " you were asked: "
    expected = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS, prompt=prompt, batch_size=1)
    local = local_of(folder, runtime="torch", precision="float32", prompts={"query": prompt})
    await local.start()
    rows, _ = await embedded(local, *TEXTS, input_type="query", normalize=False, long_input="end")
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    await local.close()


async def test_what_cannot_be_served_so_is_refused_in_one_line(tmp_path):
    weighted = made(tmp_path, include_prompt=False, pooling="weightedmean")
    with pytest.raises(OperatorError, match="weights tokens by their position and leaves its prompt out"):
        await local_of(weighted, runtime="torch").start()


async def test_a_text_without_any_token_is_refused_and_the_others_go_on(tmp_path):
    """Of a tokenizer without special tokens, nothing is left of white space: no network can read that."""
    folder = made(tmp_path, special=False)
    local = local_of(folder, runtime="torch", precision="float32")
    await local.start()
    with pytest.raises(InvalidValue, match=r"'input\[1\]': the model reads no token in it"):
        await local.prepare(inputs_of("red", " "))
    rows, _ = await embedded(local, "the red server")
    assert np.isfinite(rows).all()
    await local.close()
