"""What a model of another kind than an embedder is refused for, and how members of such a group are compared."""

import numpy as np
import pytest

from gateway.config import ModelRow
from gateway.embedding.equivalence import PROBES, check_equivalent, probe_vectors
from gateway.embedding.model import refuse_other_than_embedder, refuse_settings_of_vectors
from gateway.errors import ConfigurationError, OperatorError
from gateway.testing.fakes import FakeEmbedder

SETTINGS = {"max_dimensions": 8, "layer_norm_before_cut": True, "quantization": "0" * 16, "quantization_ranges": (-1.0, 1.0)}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_vectors_is_refused_by_name_in_a_sparse_encoders_row(name):
    row = ModelRow(name="s", **{name: SETTINGS[name]})
    refuse_settings_of_vectors(row, "embedder")
    refuse_settings_of_vectors(row, None)
    with pytest.raises(ConfigurationError, match=rf"models\[s\]\.{name}: .* sparse encoder, which gives weights of words"):
        refuse_settings_of_vectors(row, "sparse_encoder")


@pytest.mark.parametrize("kind", ["reranker", "sparse_encoder", "multi_vector_encoder"])
def test_what_writes_a_vector_a_text_refuses_every_other_kind(kind):
    refuse_other_than_embedder("m", "embedder")
    refuse_other_than_embedder("m", None)
    with pytest.raises(OperatorError, match=rf"models\[m\] is a {kind.replace('_', ' ')}"):
        refuse_other_than_embedder("m", kind)


async def test_sparse_members_of_a_group_are_compared_over_the_whole_vocabulary():
    embedder = FakeEmbedder(dimensions=400)
    embedder.about["kind"] = "sparse_encoder"
    rows = await probe_vectors(embedder)
    assert rows.shape == (len(PROBES), 400)
    assert all(row[len(text.split()[0])] > 0 for row, text in zip(rows, PROBES, strict=True))
    about = embedder.describe()
    check_equivalent("two", (about, rows), (about, rows))
    with pytest.raises(OperatorError, match="do not give the same vectors"):
        check_equivalent("two", (about, rows), (about, np.roll(rows, 1, axis=1)))


async def test_a_text_without_any_weight_is_the_same_for_both_sparse_members_and_no_proof():
    embedder = FakeEmbedder(dimensions=400)
    embedder.about["kind"] = "sparse_encoder"
    about, rows = embedder.describe(), await probe_vectors(embedder)
    some = rows * (np.arange(len(rows)) > 2)[:, None]  # of the first three nothing remains
    check_equivalent("two", (about, some), (about, some))
    for first, other in ((some, rows), (rows, some), (0 * rows, 0 * rows)):
        with pytest.raises(OperatorError, match="do not give the same vectors"):
            check_equivalent("two", (about, first), (about, other))


async def test_token_vectors_of_another_number_of_tokens_are_not_the_same():
    embedder = FakeEmbedder()
    embedder.about["kind"] = "multi_vector_encoder"
    about, rows = embedder.describe(), await probe_vectors(embedder)
    check_equivalent("two", (about, rows), (about, rows))
    with pytest.raises(OperatorError, match="do not give the same vectors"):
        check_equivalent("two", (about, rows), (about, rows[1:]))
