"""Weights that are not those the configuration asks for are refused by name, in the child that compiles and through torch alike."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from gateway.errors import OperatorError
from gateway.testing import model_folders as folders
from gateway.tests.engine.conftest import embedded, local_of

WEIGHTS = "model.safetensors"
TENSOR = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return folders.base("bert-cls-dense", tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def with_tensors(folder, change, file=WEIGHTS):
    """Its weights, after `change` was made to the table of them."""
    tensors = load_file(folder / file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file, metadata={"format": "pt"})


def layer_removed(tensors):
    for name in [name for name in tensors if name.startswith("encoder.layer.0.")]:
        del tensors[name]


def renamed(tensors):
    tensors[TENSOR.replace("query", "qwery")] = tensors.pop(TENSOR)


def reshaped(tensors):
    tensors[TENSOR] = torch.zeros(31, 32)


def not_a_number(tensors):
    tensors[TENSOR][3, 3] = float("nan")


def infinite(tensors):
    tensors["embeddings.word_embeddings.weight"][0, 0] = float("-inf")


def left_over(tensors):
    tensors["encoder.layer.2.output.dense.weight"] = torch.zeros(32, 48)


BROKEN = {
    "a layer is missing": (layer_removed, "encoder.layer.0.attention.output.LayerNorm.bias.* and 12 more are missing"),
    "a tensor is missing": (lambda tensors: tensors.pop(TENSOR), f"{TENSOR} is missing"),
    "a tensor is renamed": (renamed, f"{TENSOR} is missing; encoder.layer.0.attention.self.qwery.weight is left over"),
    "another shape": (reshaped, TENSOR),
    "not a number": (not_a_number, f"not finite, in .*{TENSOR}"),
    "an infinity": (infinite, "not finite, in .*word_embeddings"),
    "a layer more than config.json has": (left_over, "encoder.layer.2.output.dense.weight is left over"),
}


async def refused(folder, runtime, tmp_path):
    local = local_of(folder, runtime=runtime, precision="float32", data_dir=tmp_path / "data")
    with pytest.raises(OperatorError) as caught:
        await local.start()
    await local.close()
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("change", "words"), BROKEN.values(), ids=BROKEN)
async def test_weights_that_do_not_fit_are_refused_by_name(change, words, copy, tmp_path):
    with_tensors(copy, change)
    assert re.search(words, await refused(copy, "torch", tmp_path))


@pytest.mark.parametrize("runtime", ["openvino", "auto"])
async def test_the_child_that_compiles_refuses_them_too(runtime, copy, tmp_path):
    with_tensors(copy, layer_removed)
    assert "and 12 more are missing" in await refused(copy, runtime, tmp_path)


async def test_fewer_layers_than_the_weights_have_are_refused(copy, tmp_path):
    folders.edit(copy / "config.json", num_hidden_layers=1)
    assert "encoder.layer.1.attention.output.LayerNorm.bias" in await refused(copy, "torch", tmp_path)


async def test_a_modules_own_weights_are_held_to_the_same(copy, tmp_path):
    [dense] = copy.glob("*_Dense")
    with_tensors(dense, lambda tensors: tensors.pop("linear.bias"))
    assert "linear.bias" in await refused(copy, "torch", tmp_path)


@pytest.mark.parametrize("num_bytes", [0, 7, 100, -1000])
async def test_a_file_that_is_cut_short_is_refused(num_bytes, copy, tmp_path):
    content = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(content[:num_bytes])
    await refused(copy, "torch", tmp_path)


async def test_a_shard_that_is_missing_is_refused(copy, tmp_path):
    tensors = load_file(copy / WEIGHTS)
    save_file(tensors, copy / "model-1.safetensors", metadata={"format": "pt"})
    (copy / WEIGHTS).unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "model-1.safetensors") | {TENSOR: "model-2.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    await refused(copy, "torch", tmp_path)


async def test_heads_and_buffers_that_an_embedder_does_not_need_may_be_there(copy, tmp_path):
    def heads(tensors):
        for name in ("cls.predictions.bias", "lm_head.weight", "classifier.weight", "embeddings.position_ids"):
            tensors[name] = torch.zeros(3)

    with_tensors(copy, heads)
    local = local_of(copy, runtime="torch", precision="float32", data_dir=tmp_path / "data")
    await local.start()
    await local.close()


async def test_a_pooler_may_be_missing_and_a_masked_lms_head_left_over(copy, tmp_path):
    """As most BERTs on the hub are: saved with the head they were trained with, and without a pooler."""
    config = BertConfig.from_pretrained(copy)
    BertForMaskedLM(config).save_pretrained(copy)
    local = local_of(copy, runtime="torch", precision="float32", data_dir=tmp_path / "data")
    await local.start()
    rows, _ = await embedded(local, "a")
    assert rows.shape == (1, 24)
    await local.close()


async def test_a_pooler_that_is_read_may_not_be_missing(copy, tmp_path):
    with_tensors(copy, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("pooler")])
    text = {"text": {"method": "forward", "method_output_name": "pooler_output"}}
    folders.edit(copy / "sentence_bert_config.json", modality_config=text, module_output_name="sentence_embedding")
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps([module for module in modules if not module["type"].endswith("Pooling")]))
    assert "pooler.dense" in await refused(copy, "torch", tmp_path)


def tokens(folder, change):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def second_type(content):
    content["post_processor"]["single"][1]["Sequence"]["type_id"] = 1


def more_words(content):
    content["model"]["vocab"] |= {f"word{number}": 400 + number for number in range(9)}


def token_types(folder):
    tokens(folder, second_type)
    folders.edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])


def reads(folder, num_tokens):
    folders.edit(folder / "sentence_bert_config.json", max_seq_length=num_tokens)


OTHER_INPUT = {
    "token types": (token_types, "token types other than 0"),
    "more words than rows": (lambda folder: tokens(folder, more_words), "table of embeddings"),
    "more positions than rows": (lambda folder: reads(folder, 65), "64 positions"),
    "two words of one number": (
        lambda folder: tokens(folder, lambda content: content["model"]["vocab"].update(h=20)), "have one number",
    ),
    "no room for a token": (lambda folder: reads(folder, 2), "it reads 2 tokens"),
    "cut at the left": (
        lambda folder: folders.edit(folder / "tokenizer_config.json", truncation_side="left"), "cuts elsewhere",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), OTHER_INPUT.values(), ids=OTHER_INPUT)
async def test_inputs_that_are_not_fed_as_sentence_transformers_does_are_refused(change, words, copy, tmp_path):
    reads(copy, 8)
    change(copy)
    assert words in await refused(copy, "torch", tmp_path)


async def test_a_chat_template_that_sentence_transformers_would_fill_in_is_refused(whole, tmp_path):
    folder = folders.bare(whole, tmp_path / "bare")
    (folder / "chat_template.jinja").write_text("{% for message in messages %}<{{ message['content'] }}>{% endfor %}")
    assert "message" in await refused(folder, "torch", tmp_path)


@pytest.mark.parametrize("unknown", ["", "[NOWHERE]"])
async def test_what_tokenizers_raises_is_one_line_too(unknown, copy, tmp_path):
    tokens(copy, lambda content: content["model"]["vocab"].pop("[UNK]"))
    tokens(copy, lambda content: content["model"].update(unk_token=unknown))
    await refused(copy, "torch", tmp_path)


async def test_a_folder_whose_encode_raises_is_refused_though_its_modules_run(copy, tmp_path):
    """Normalize passes over what it is to normalise and does not find; `encode` looks at every name of the features."""
    [normalize] = copy.glob("*_Normalize")
    (normalize / "config.json").write_text('{"module_input_name": true}')
    assert "it cannot be run: IndexError" in await refused(copy, "torch", tmp_path)


async def test_modules_that_read_no_text_are_refused(copy, tmp_path):
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps(modules[1:]))
    assert "reads no texts" in await refused(copy, "torch", tmp_path)
