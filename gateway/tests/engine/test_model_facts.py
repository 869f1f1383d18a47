"""What commands say of a model from its files alone is what loading it gives."""

import shutil

import pytest

from gateway.engine.identity import identity_of
from gateway.engine.model_facts import facts_of
from gateway.errors import OperatorError
from gateway.testing import model_folders as folders
from gateway.testing.static_models import DIMENSIONS, save_model2vec


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return folders.base("bert-cls-dense", tmp_path_factory.mktemp("whole"))


def test_an_embedder(whole):
    facts = facts_of(whole)
    assert (facts.kind, facts.network, facts.dimensions, facts.max_tokens) == ("embedder", "bert", 24, folders.READS)
    assert facts.modules == ("Transformer", "Pooling", "Dense", "Normalize")
    assert facts.num_bytes > 10_000
    assert facts.default_pooling == ""


def test_a_bare_folder_has_the_sizes_of_its_network(whole, tmp_path):
    facts = facts_of(folders.bare(whole, tmp_path / "bare"))
    assert (facts.dimensions, facts.max_tokens, facts.default_pooling) == (folders.HIDDEN, folders.READS, "mean pooling")


def test_prompts_and_a_cut(tmp_path):
    assert facts_of(folders.base("bert-prompts", tmp_path)).prompts == {"query": "query: ", "document": "passage: "}
    assert facts_of(folders.base("bert-cut", tmp_path)).dimensions == 16


def test_a_static_model(tmp_path):
    facts = facts_of(save_model2vec(tmp_path / "static"))
    assert (facts.network, facts.dimensions) == ("static", DIMENSIONS)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "openvino/openvino_model.bin", "model.gguf"])
def test_weights_of_another_format_are_named(name, whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "model")
    (folder / name).parent.mkdir(exist_ok=True)
    for path in folder.rglob("*.safetensors"):
        shutil.move(path, folder / name)
    for look in (facts_of, identity_of):
        with pytest.raises(OperatorError, match=f"{name} is of a format that is not read"):
            look(folder)
