"""Files that are not whole, and networks and modules that nobody serves, are refused before anything is loaded."""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from sentence_transformers.sentence_transformer import modules as known_modules

from gateway.engine.settings import LocalSettings
from gateway.engine.unsupported import MODULES, UNSERVED
from gateway.engine.weights import local_folder
from gateway.errors import OperatorError

NOBODY = 65534
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 133466304\n"
INDEX = "model.safetensors.index.json"


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def other_network(folder, **fields):
    edit(folder / "config.json", **fields)
    edit(folder / "sentence_bert_config.json", modality_config=None)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def shard(folder, *names):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {f"tensor{number}": name for number, name in enumerate(names)}}))


def header(folder, tensors):
    content = msgspec.json.encode(tensors)
    (folder / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)


def retype(path, dtype):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = msgspec.json.decode(raw[8 : 8 + length])
    for name, tensor in header.items():
        if name != "__metadata__":
            tensor["dtype"] = dtype
    new = msgspec.json.encode(header)
    path.write_bytes(len(new).to_bytes(8, "little") + new + raw[8 + length :])


def module(folder, name, package="sentence_transformers.models"):
    listed = json.loads((folder / "modules.json").read_text())
    (folder / "2_More").mkdir()
    (folder / "2_More" / "config.json").write_text("{}")
    (folder / "modules.json").write_text(
        json.dumps([*listed, {"idx": 2, "name": "2", "path": "2_More", "type": f"{package}.{name}"}])
    )


SPOILT = {
    "a cut file": (lambda folder: cut(folder / "model.safetensors"), "was cut short: it has"),
    "a file of nothing": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "is empty"),
    "a pointer": (lambda folder: (folder / "model.safetensors").write_text(POINTER), "is a pointer of Git LFS"),
    "a tokenizer's pointer": (lambda folder: (folder / "tokenizer.json").write_text(POINTER), "is a pointer of Git LFS"),
    "half a tokenizer": (lambda folder: cut(folder / "tokenizer.json"), "is no tokenizer"),
    "a tokenizer that is none": (lambda folder: (folder / "tokenizer.json").write_text('{"a": 1}'), "is no tokenizer"),
    "a sentencepiece model": (
        lambda folder: (folder / "tokenizer.json").replace(folder / "sentencepiece.bpe.model"),
        "has sentencepiece.bpe.model and no tokenizer.json",
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
    "a page": (lambda folder: (folder / "model.safetensors").write_text("Access to a/b is restricted"), "no safetensors file"),
    "half a header": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{'a': 1}"), "is not that of one",
    ),
    "half an offset": (lambda folder: header(folder, {"a": {"dtype": "F32", "data_offsets": [0]}}), "is not that of one"),
    "a header of numbers": (lambda folder: header(folder, {"a": 5}), "is not that of one"),
    "another's .bin": (
        lambda folder: (folder / "model.safetensors").replace(folder / "pytorch_model.bin"), "is no file of weights",
    ),
    "a missing shard": (
        lambda folder: shard(folder, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        "names 2 files of weights, and 1 of them are not there, model-00002-of-00002.safetensors first",
    ),
    "an index of nothing": (shard, "names no files of weights"),
    "modalities that are none": (lambda folder: edit(folder / "sentence_bert_config.json", modality_config=5), "is no JSON object"),
    "prompts that are none": (lambda folder: edit(folder / "config_sentence_transformers.json", prompts=[1]), "`$.prompts`"),
    "shards that are none": (lambda folder: shard(folder, 5), "names no files of weights"),
    "float8": (lambda folder: retype(folder / "model.safetensors", "F8_E4M3"), "is of quantised weights (F8_E4M3)"),
    "bitsandbytes": (
        lambda folder: edit(folder / "config.json", quantization_config={"load_in_4bit": True, "quant_method": "bitsandbytes"}),
        "is quantised",
    ),
    "a module's folder is missing": (lambda folder: shutil.rmtree(folder / "1_Pooling"), "names 1_Pooling, which has no"),
    "a network of tomorrow": (lambda folder: edit(folder / "config.json", model_type="oracle9"), "of the network oracle9"),
    "no network": (lambda folder: edit(folder / "config.json", model_type=None), "there is no model_type"),
    "images": (lambda folder: other_network(folder, model_type="siglip", vision_config={}), "images or sound"),
    "sound": (lambda folder: other_network(folder, model_type="whisper", num_mel_bins=80), "images or sound"),
    "CNN": (lambda folder: module(folder, "CNN"), "it mixes padding into the vectors"),
    "LSTM": (lambda folder: module(folder, "LSTM"), "it reads the length of each text"),
    "words": (lambda folder: module(folder, "WordWeights"), "it reads whole words"),
    "a table behind a network": (lambda folder: module(folder, "StaticEmbedding"), "is served if it comes first"),
    "a class of tomorrow": (lambda folder: module(folder, "Oracle"), "it is in no release of sentence-transformers"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), SPOILT.values(), ids=SPOILT)
def test_it_is_refused_by_its_files_in_one_line(spoil, words, small_model, tmp_path):
    folder = shutil.copytree(small_model, tmp_path / "model")
    spoil(folder)
    with pytest.raises(OperatorError) as caught:
        local_folder(LocalSettings(source=str(folder), download=False))
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder.mkdir(), "it is empty"),
        (lambda folder: folder.write_text("weights"), "is a file, where the folder"),
        (
            lambda folder: (folder.mkdir(), (folder / "model-q4.gguf").write_text("GGUF")),
            "model-q4.gguf is of a format that is not read",
        ),
        (lambda folder: (folder.mkdir(), (folder / "model.onnx").write_text("o")), "model.onnx is of a format that is not read"),
    ],
    ids=["empty", "a file", "GGUF", "ONNX"],
)
def test_what_is_no_model_is_told_apart(make, words, tmp_path):
    make(tmp_path / "model")
    with pytest.raises(OperatorError) as caught:
        local_folder(LocalSettings(source=str(tmp_path / "model"), download=False))
    assert words in str(caught.value)


def test_every_module_of_sentence_transformers_is_served_or_refused_with_a_reason():
    """A release with a new one fails here, before a user's model does."""
    ours = MODULES | set(UNSERVED) | {"CLIPModel", "Module", "InputModule"}  # the kind CLIP, and two base classes
    assert set(known_modules.__all__) <= ours


@contextmanager
def as_nobody():
    """File permissions do not hold for root, as which tests run in a container."""
    is_root = not os.geteuid()
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("name", ["config.json", "1_Pooling", ""], ids=["a file", "a module's folder", "the folder"])
def test_what_may_not_be_read_is_named(name, small_model):
    with tempfile.TemporaryDirectory() as above:  # pytest's own folders are root's alone
        Path(above).chmod(0o755)
        folder = shutil.copytree(small_model, Path(above) / "model")
        (folder / name).chmod(0)
        with as_nobody(), pytest.raises(OperatorError, match=rf"{name}\S* cannot be read: Permission denied"):
            local_folder(LocalSettings(source=str(folder), download=False))
