"""`gateway models diff`: what an operator is told before an index is searched with another model."""

import json
import shutil

from sentence_transformers import SentenceTransformer

from gateway.tests.cli.conftest import Command, told
from gateway.tests.engine.conftest import small_model  # noqa: F401 - a fixture

ROWS = """
[[models]]
name = "before"
source = "{before}"
runtime = "{runtime}"
precision = "float32"

[[models]]
name = "after"
source = "{after}"
runtime = "{runtime}"
precision = "float32"
"""


def test_models_with_other_prompts_and_equal_vectors_are_told_from_those_that_moved(gateway: Command, tmp_path, small_model):  # noqa: F811
    model = SentenceTransformer(str(small_model), device="cpu")
    model.prompts = {"query": "another: "}
    model.save(str(tmp_path / "after"), create_model_card=False)
    (tmp_path / "gateway.toml").write_text(ROWS.format(before=small_model, after=tmp_path / "after", runtime="torch"))
    run = gateway("models", "diff", "before", "after", "--json")
    report = json.loads(run.out)
    assert "prompts" in report["parts_that_differ"]
    assert report["worst_cosine"] > 0.99999
    assert report["verdict"] == "an index made with one may be searched with the other"
    assert run.code == 0

    model[0].auto_model.embeddings.word_embeddings.weight.data.neg_()
    model.save(str(tmp_path / "after"), create_model_card=False)
    run = gateway("models", "diff", "before", "after")
    assert run.code == 1
    assert "weights" in run.out
    assert "the vectors moved: embed anew" in run.out


def test_a_fingerprint_of_before_is_measured_by_its_compiled_model_while_that_is_there(gateway: Command, tmp_path, small_model):  # noqa: F811
    folder = tmp_path / "model"
    shutil.copytree(small_model, folder)
    (tmp_path / "gateway.toml").write_text(
        f'[[models]]\nname = "m"\nsource = "{folder}"\nruntime = "openvino"\nprecision = "float32"\n'
    )
    old = json.loads(gateway("models", "diff", "m", "m", "--json").out)["first"]
    config = folder / "sentence_bert_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_seq_length": 16}))
    report = json.loads(gateway("models", "diff", old, "m", "--json").out)
    assert report["first"] == old
    assert report["parts_that_differ"]
    assert report["texts"] == 256
    gone = "0" * 24 + ".openvino-float32"
    run = gateway("models", "diff", gone, "m")
    assert run.code == 1
    assert "one of them cannot be run here" in run.out


def test_what_is_no_model_is_said_to_be_none(gateway: Command):
    assert "is no configured model, no fingerprint" in told(gateway("models", "diff", "nope", "nope"))
