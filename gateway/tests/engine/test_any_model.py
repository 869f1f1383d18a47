"""Models of other shapes, made on the spot: each served as sentence-transformers' `encode` embeds it."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from gateway.engine.fidelity import PROBES, cosines
from gateway.tests.engine.conftest import embedded, local_of

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = ["the red server", "a", "Größe 你好 مرحبا 🙂", "one two three four five six seven", "x" * 30, "word " * 40]
HIDDEN = 32


def trained(kind):
    """A small tokenizer of one of the three families, trained on the probe texts."""
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=SPECIAL, unk_token="[UNK]")
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    elif kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator([*PROBES, *TEXTS], trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ids)
    return tokenizer


def made(folder, *, tokenizer="wordpiece", pooling="mean", side="right", dense=False, normalize=False):
    torch.manual_seed(11)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=trained(tokenizer), model_max_length=64, padding_side=side, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip
    config = BertConfig(
        vocab_size=len(fast), hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    fast.save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert"), max_seq_length=64), Pooling(HIDDEN, pooling_mode=pooling)]
    modules += [Dense(HIDDEN, 24)] if dense else []
    modules += [Normalize()] if normalize else []
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "whole"), create_model_card=False)
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
