"""Batches without padding. FlashAttention runs on CUDA alone; a slow function that attends like it stands in for it here."""

import inspect
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AttentionInterface, RobertaConfig, RobertaModel
from transformers import modeling_flash_attention_utils as flash
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

from gateway.engine import flash_attention, varlen_attention
from gateway.engine.encoder import EncoderInfo, NetworkInfo
from gateway.engine.fidelity import probe_windows
from gateway.engine.shape_buckets import FREE
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.torch_encoder import TorchEncoder
from gateway.testing.architectures import model_of
from gateway.testing.small_model import small_tokenizer
from gateway.tests.engine.conftest import embedded, local_of
from gateway.tests.engine.test_torch_encoder import has_cuda, minilm

STAND_IN = "flash_attention_stand_in"
TEXTS = ["the red server", "a", "we and you in the long text of a model", "it is blue", "green " * 25]


def attend(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale=None, causal=False, dropout_p=0.0):
    """`flash_attn_varlen_func`: each sequence, of those laid end to end, attends to itself alone. Shape (tokens, heads, width)."""
    assert cu_seqlens_q.equal(cu_seqlens_k)
    parts = []
    for start, end in pairwise(cu_seqlens_q.tolist()):
        assert end - start <= max_seqlen_q == max_seqlen_k
        each = [tensor[start:end].transpose(0, 1) for tensor in (q, k, v)]
        parts.append(torch.nn.functional.scaled_dot_product_attention(*each, is_causal=causal, scale=softmax_scale).transpose(0, 1))
    return torch.cat(parts)


def attend_to_neighbours(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **more):
    """An attention that mixes texts: what must never be served."""
    whole = torch.tensor([0, len(q)])
    return attend(q, k, v, whole, whole, len(q), len(q), **more)


def attend_as_torch(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False):
    """`torch.nn.attention.varlen.varlen_attn`, with the arguments of its signature."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    if enable_gqa:
        key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (key, value))
    return attend(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, softmax_scale=scale, causal=window_size == (-1, 0))


@pytest.fixture
def install(monkeypatch):
    """Makes a function this machine's FlashAttention, as transformers keeps the one it has loaded."""

    def installed(function):
        AttentionInterface.register(STAND_IN, flash_attention_forward)
        AttentionMaskInterface.register(STAND_IN, flash_attention_mask)
        monkeypatch.setattr(flash, "_loaded_implementation", STAND_IN)
        monkeypatch.setattr(flash, "_flash_varlen_fn", function)
        monkeypatch.setattr(flash, "_process_flash_kwargs_fn", flash._lazy_define_process_function(attend))

    return installed


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """Positions of this one begin behind the padding's."""
    folder = tmp_path_factory.mktemp("roberta")
    torch.manual_seed(5)
    tokenizer = small_tokenizer()
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(folder / "roberta")
    tokenizer.save_pretrained(folder / "roberta")
    modules = [Transformer(str(folder / "roberta"), max_seq_length=32), Pooling(32, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


@pytest.mark.parametrize("family", ["bert", "roberta"])
async def test_vectors_without_padding_are_encodes_own(family, small_model, roberta, install):
    folder = roberta if family == "roberta" else small_model
    local = local_of(folder, runtime="torch", precision="float32")
    await local.start()
    encoder = local.devices[0].encoder
    encoder.info = replace(encoder.info, tokenizer_json=local.tokenizer.to_json())  # as it was before it served
    install(attend)
    encoder.unpad(STAND_IN)
    assert encoder.is_unpadded
    assert encoder.info.shapes is FREE
    shapes = []
    encoder.model[0].register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0]["input_ids"].shape)))
    rows, prepared = await embedded(local, *TEXTS, normalize=False)
    expected = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS, prompt="")
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert {rows for rows, _ in shapes} == {1}
    assert sum(columns for _, columns in shapes) == prepared.num_tokens  # and not one more
    await local.close()


@pytest.mark.parametrize("function", [attend_to_neighbours, None], ids=["that mixes texts", "that cannot run"])
def test_padding_stays_with_an_attention(function, install, capsys):
    """A warning says why, and vectors stay what they were."""
    encoder = minilm()
    windows = probe_windows(encoder.info.network, Tokenizer(encoder.info.tokenizer_json))
    before = encoder.embed(windows)
    if function:
        install(function)
    encoder.unpad(STAND_IN)
    assert not encoder.is_unpadded
    said = capsys.readouterr().out
    assert "batches_with_padding" in said
    assert ("worst cosine" in said) == (function is not None)
    np.testing.assert_array_equal(encoder.embed(windows), before)


@pytest.mark.parametrize(
    ("device", "precision", "leaves_prompt_out", "expected"),
    [
        ("cuda:1", "float16", False, True),
        ("cuda:0", "bfloat16", False, True),
        ("cuda:0", "float32", False, False),
        ("cpu", "bfloat16", False, False),
        ("cuda:0", "float16", True, False),
    ],
)
def test_when_it_is_possible(device, precision, leaves_prompt_out, expected):
    info = EncoderInfo(
        network=NetworkInfo(dimensions=4, max_tokens=8, is_normalized=False, leaves_prompt_out=leaves_prompt_out),
        tokenizer_json="", runtime="torch", device=device, precision=precision, default_max_batch_tokens=64,
    )  # fmt: skip
    assert flash_attention.is_possible(info) is expected


@pytest.fixture
def loaded_attention(monkeypatch):
    """What transformers has loaded is what it was, after the test."""
    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_pad_fn", "_unpad_fn", "_process_flash_kwargs_fn"):
        monkeypatch.setattr(flash, name, getattr(flash, name))


@pytest.mark.usefixtures("loaded_attention")
@pytest.mark.parametrize("kind", ["bert", "roberta", "qwen3"])
def test_torchs_own_attention_takes_the_place_of_the_package(kind, roberta, small_model, tmp_path):
    """Grouped queries and causal attention included. torch's signature is the stand-in's, as the next test says."""
    folder = {"bert": small_model, "roberta": roberta}.get(kind) or model_of(kind, tmp_path / kind)
    encoder = TorchEncoder(folder, device="cpu", precision="float32", threads=0)
    windows = probe_windows(encoder.info.network, Tokenizer(encoder.info.tokenizer_json))
    expected = encoder.embed(windows)
    encoder.unpad(varlen_attention.register(attend_as_torch))
    assert encoder.is_unpadded
    np.testing.assert_allclose(encoder.embed(windows), expected, atol=1e-4)


def test_this_torch_has_it_with_the_arguments_that_it_is_called_with():
    attention = varlen_attention.varlen_attention()
    assert attention is not None
    ours, theirs = (inspect.signature(each).parameters for each in (attend_as_torch, attention))
    assert set(ours) <= set(theirs)
    assert list(ours)[:7] == list(theirs)[:7]


def test_a_torch_without_it_leaves_the_package(monkeypatch):
    monkeypatch.setattr(varlen_attention, "MODULE", "torch.nn.attention.of_another_version")
    assert varlen_attention.varlen_attention() is None
    assert flash_attention.implementation_for(torch.device("cpu")) == flash_attention.installed_flash_attention()


def test_rows_of_one_length_are_laid_end_to_end():
    dense, _ = varlen_attention.functions_of(attend_as_torch)
    torch.manual_seed(3)
    q, k, v = (torch.randn(2, 5, 4, 8) for _ in range(3))
    each = [tensor.transpose(1, 2) for tensor in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*each, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(dense(q, k, v, causal=True), expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a CUDA device")
def test_without_cuda_there_is_no_flash_attention():
    assert flash_attention.installed_flash_attention() is None


@has_cuda
def test_flash_attention_is_used_where_it_is_installed():
    if flash_attention.implementation_for(torch.device("cuda:0")) is None:
        pytest.skip("there is no FlashAttention")
    assert minilm(device="cuda:0", precision="float16").is_unpadded
