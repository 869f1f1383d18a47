"""Which vectors a loaded model's fingerprint stands for."""

import json
import shutil

import pytest

from gateway.embedding.fingerprint import changes
from gateway.errors import OperatorError
from gateway.tests.engine.conftest import local_of, unload


def fingerprint(folder, **settings):
    local = local_of(folder, **{"runtime": "torch", **settings})
    local.load()
    unload(local)
    return local.describe().fingerprint


@pytest.fixture(scope="module")
def original(small_model):
    return fingerprint(small_model)


def test_it_is_the_same_for_the_same_files_elsewhere(small_model, original, tmp_path):
    copy = shutil.copytree(small_model, tmp_path / "copy")
    assert fingerprint(copy) == original


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"long_input": "end"}, ["long-input rule"]),
        ({"prompts": {"query": "ask: "}}, ["prompts"]),
        ({"precision": "bfloat16"}, ["runtime or precision"]),
    ],
)
def test_it_changes_with_what_changes_vectors(small_model, original, settings, changed):
    assert changes(original, fingerprint(small_model, **settings)) == changed


@pytest.mark.parametrize("changed", [{"pooling_mode": "mean"}, {"include_prompt": False}])
def test_another_pooling_is_another_fingerprint(small_model, original, changed, tmp_path):
    copy = shutil.copytree(small_model, tmp_path / "copy")
    file = next(path for path in copy.glob("*/config.json") if "pooling" in path.read_text())
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    assert changes(original, fingerprint(copy)) == ["pooling"]


def test_other_weights_are_another_fingerprint(small_model, original, tmp_path):
    copy = shutil.copytree(small_model, tmp_path / "copy")
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert changes(original, fingerprint(copy)) == ["weights or configuration"]


def test_a_damaged_model_is_one_clear_line(small_model, tmp_path):
    copy = shutil.copytree(small_model, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(OperatorError, match="is no safetensors file") as caught:
        fingerprint(copy)
    assert "\n" not in str(caught.value)
