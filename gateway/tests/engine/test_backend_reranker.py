"""What commands say of a reranker's row before it is loaded, and what such a row cannot have."""

import pytest

from gateway.config import EngineSettings, LimitSettings, ModelRow
from gateway.embedding.backend import BackendContext, BoundBackend
from gateway.embedding.model import refuse_reranker
from gateway.engine.backend import SentenceTransformersBackend
from gateway.engine.settings import LocalSettings
from gateway.errors import ConfigurationError, OperatorError
from gateway.metrics import Metrics
from gateway.testing.rerankers import reranker_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return reranker_of("bert", tmp_path_factory.mktemp("bert"))


def bound(folder, tmp_path, row=None, **settings):
    context = BackendContext("r", LimitSettings(), EngineSettings(), Metrics().of_model("r"), tmp_path)
    known = LocalSettings(source=str(folder), download=False, **settings)
    return BoundBackend(ModelRow(name="r", **row or {}), SentenceTransformersBackend(), known, context, cached=lambda made: made)


def test_the_table_says_its_kind_before_it_is_compiled(folder, tmp_path):
    bound(folder, tmp_path).check()
    shown = bound(folder, tmp_path).preview()
    assert (shown.kind, shown.dimensions, shown.state) == ("reranker", None, "not compiled")


SENSELESS = {
    "max_dimensions": ({"max_dimensions": 8}, {}),
    "layer_norm_before_cut": ({"layer_norm_before_cut": True}, {}),
    "quantization": ({"quantization": "0" * 16}, {}),
    "quantization_ranges": ({"quantization_ranges": (-1.0, 1.0)}, {}),
    "prompts": ({}, {"prompts": {"query": "q: "}}),
    "instruction_format": ({}, {"instruction_format": "Instruct: {instruction}\n"}),
}


@pytest.mark.parametrize("name", SENSELESS)
def test_a_setting_that_only_an_embedder_has_is_refused_by_name(name, folder, tmp_path):
    row, settings = SENSELESS[name]
    with pytest.raises(ConfigurationError, match=rf"models\[r\].*{name}: it is for .*reranker"):
        bound(folder, tmp_path, row, **settings).check()


def test_what_writes_vectors_refuses_other_kinds():
    refuse_reranker("m", "embedder")
    refuse_reranker("m", None)
    with pytest.raises(OperatorError, match=r"models\[m\] is a reranker"):
        refuse_reranker("m", "reranker")
