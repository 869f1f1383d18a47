"""A reranker's fingerprint covers every file that changes a score."""

import pytest

from gateway.engine.identity import identity_of
from gateway.testing.model_folders import edit
from gateway.testing.rerankers import causal_reranker_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return causal_reranker_of(tmp_path_factory.mktemp("causal"))


CHANGES = {
    "the template": (lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"), "tokenizer"),
    "the words of the score": (lambda folder: edit(folder / "1_LogitScore" / "config.json", false_token_id=7), "pooling"),
    "the instruction": (
        lambda folder: edit(folder / "config_sentence_transformers.json", prompts={"a": "b"}, default_prompt_name="a"),
        "configuration",
    ),
    "what the network computes": (lambda folder: edit(folder / "config.json", rms_norm_eps=0.5), "configuration"),
}


@pytest.mark.parametrize(("change", "part"), CHANGES.values(), ids=CHANGES)
def test_what_changes_a_score_changes_its_part_of_the_identity(change, part, folder):
    before = identity_of(folder)
    change(folder)
    now = identity_of(folder)
    assert getattr(now, part) != getattr(before, part)
    assert now.weights == before.weights
