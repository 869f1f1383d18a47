"""A LoRA adapter beside its base is served as the two merged."""

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from gateway.engine.adapter import base_of
from gateway.engine.identity import identity_of
from gateway.engine.kind import kind_of
from gateway.engine.model_facts import facts_of
from gateway.engine.settings import LocalSettings
from gateway.engine.weights import local_folder
from gateway.errors import OperatorError
from gateway.testing.architectures import TEXTS
from gateway.testing.families import save_adapter
from gateway.tests.engine.conftest import embedded, local_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_adapter(tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the adapter's folder, and of its base."""
    shutil.copytree(saved.parent / "base", tmp_path / "base")
    folder = shutil.copytree(saved, tmp_path / "model")
    change(folder, base_model_name_or_path="../base")
    return folder


def change(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def merged_by_hand(folder, into, *, factor):
    """The same model with the adapter in its weights, told again."""
    base, adapter = base_of(folder), load_file(folder / "adapter_model.safetensors")
    shutil.copytree(folder, into, ignore=shutil.ignore_patterns("adapter_*"))
    tensors = load_file(base / "model.safetensors")
    for name, b in adapter.items():
        if "lora_B" in name:
            a = adapter[name.replace("lora_B", "lora_A")]
            tensors[name.removeprefix("base_model.model.").replace(".lora_B", "")] += factor * b @ a
    shutil.copy(base / "config.json", into / "config.json")
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    return into


async def test_it_is_served_as_the_two_merged(copy, tmp_path):
    expected = SentenceTransformer(str(merged_by_hand(copy, tmp_path / "whole", factor=2)), device="cpu").encode(TEXTS)
    change(copy, use_rslora=True)
    by_root = SentenceTransformer(str(merged_by_hand(copy, tmp_path / "root", factor=4)), device="cpu").encode(TEXTS)
    for rows, use_rslora in ((expected, False), (by_root, True)):
        change(copy, use_rslora=use_rslora)
        local = local_of(copy, runtime="torch", precision="float32", data_dir=tmp_path / "data")
        await local.start()
        found, _ = await embedded(local, *TEXTS, normalize=False, long_input="end")
        np.testing.assert_allclose(found, rows, atol=1e-4)
        await local.close()
    assert not np.allclose(expected, by_root, atol=1e-2)  # or the test would prove nothing


def test_the_base_is_part_of_its_identity(copy):
    assert kind_of(copy) == "embedder"
    before = identity_of(copy)
    base = base_of(copy)
    tensors = load_file(base / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][7] += 1
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert identity_of(copy).weights != before.weights
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.1}))
    assert identity_of(copy).configuration != before.configuration
    assert facts_of(copy).network == "bert"


def test_an_adapter_without_modules_json_is_a_model_too(copy):
    for path in (copy / "modules.json", copy / "config_sentence_transformers.json"):
        path.unlink()
    assert local_folder(LocalSettings(source=str(copy))) == copy
    assert facts_of(copy).default_pooling == "mean pooling"


UNSERVED = {
    "another kind": ({"peft_type": "PROMPT_TUNING"}, "of the type PROMPT_TUNING"),
    "DoRA": ({"use_dora": True}, "it asks for use_dora"),
    "other modules": ({"modules_to_save": ["pooler"]}, "it asks for modules_to_save"),
    "biases": ({"bias": "all"}, "it asks for bias"),
    "no base": ({"base_model_name_or_path": "org/nowhere"}, "its base model, org/nowhere, is not on this machine"),
}


@pytest.mark.parametrize(("fields", "message"), UNSERVED.values(), ids=UNSERVED)
def test_what_is_not_merged_is_refused_in_one_line(fields, message, copy, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    change(copy, **fields)
    with pytest.raises(OperatorError, match=message) as caught:
        kind_of(copy)
    assert "merge_and_unload" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_an_adapter_of_another_base_is_refused(copy):
    tensors = {name.replace("encoder", "decoder"): tensor for name, tensor in load_file(copy / "adapter_model.safetensors").items()}
    tensors = {name.replace("query", "q_proj"): tensor for name, tensor in tensors.items()}
    save_file(tensors, copy / "adapter_model.safetensors")
    with pytest.raises(OperatorError, match="is not of its base model"):
        await local_of(copy, runtime="torch").start()
