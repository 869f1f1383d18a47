"""Prompts, routes and instructions, held against sentence-transformers' `encode_query`, `encode_document` and `encode`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Router, Transformer

from gateway.embedding.prompt import resolve_input_type
from gateway.errors import InvalidValue, OperatorError
from gateway.tests.engine.conftest import embedded, local_of, unload

TEXTS = ["the red server", "a long passage of text in blue and green"]
QWEN = "Instruct: the long query of a model\nQuery:"


def with_prompts(small_model, folder, prompts, default=None):
    SentenceTransformer(str(small_model), device="cpu", prompts=prompts, default_prompt_name=default).save(
        str(folder), create_model_card=False
    )
    return folder


async def rows_of(local, name, texts=TEXTS, **more):
    return (await embedded(local, *texts, input_type=resolve_input_type(name, local.describe()), **more))[0]


def assert_equal(rows, expected):
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-5)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
async def test_query_and_document_are_what_encode_query_and_encode_document_give(small_model, tmp_path, runtime):
    folder = with_prompts(small_model, tmp_path / "e5", {"query": "query: ", "passage": "passage: "}, default="passage")
    reference = SentenceTransformer(str(folder), device="cpu")
    local = local_of(folder, runtime=runtime, precision="float32")
    await local.start()
    for word in ("query", "search_query"):
        assert_equal(await rows_of(local, word), reference.encode_query(TEXTS))
    for word in ("document", "passage", "corpus", "search_document"):
        assert_equal(await rows_of(local, word), reference.encode_document(TEXTS))
    assert_equal(await rows_of(local, None), reference.encode(TEXTS))  # the default prompt
    unload(local)


async def test_a_document_of_a_model_with_a_query_prompt_alone_gets_none_though_there_is_a_default(small_model, tmp_path):
    folder = with_prompts(small_model, tmp_path / "arctic", {"query": "query: "}, default="query")
    reference = SentenceTransformer(str(folder), device="cpu")
    local = local_of(folder, runtime="torch", precision="float32")
    await local.start()
    assert_equal(await rows_of(local, "document"), reference.encode_document(TEXTS))
    assert_equal(await rows_of(local, None), reference.encode(TEXTS, prompt_name="query"))
    unload(local)


async def test_an_instruction_takes_the_place_of_the_models_own(small_model, tmp_path):
    folder = with_prompts(small_model, tmp_path / "qwen", {"query": QWEN})
    reference = SentenceTransformer(str(folder), device="cpu")
    local = local_of(folder, runtime="torch", precision="float32")
    await local.start()
    assert local.describe().takes_instruction
    rows = await rows_of(local, "query", instruction="we short green word")
    assert_equal(rows, reference.encode(TEXTS, prompt="Instruct: we short green word\nQuery:"))
    assert_equal(await rows_of(local, "query"), reference.encode_query(TEXTS))
    with pytest.raises(InvalidValue, match="instruction"):
        await rows_of(local, "query", instruction=40 * "red ")
    unload(local)


async def test_a_rows_instruction_format_is_used(small_model):
    local = local_of(small_model, runtime="torch", precision="float32", instruction_format="model: {instruction} text: ")
    await local.start()
    reference = SentenceTransformer(str(small_model), device="cpu")
    rows = await rows_of(local, "query", instruction="{red} green")
    assert_equal(rows, reference.encode(TEXTS, prompt="model: {red} green text: "))
    plain = local_of(small_model, runtime="torch", precision="float32")
    await plain.start()
    assert plain.describe().fingerprint != local.describe().fingerprint
    assert not plain.describe().takes_instruction
    unload(local)
    unload(plain)


@pytest.fixture(scope="module")
def router_model(small_model, tmp_path_factory):
    """Two transformers with one tokenizer and other weights, a route each, and Normalize behind both."""
    routes = []
    for seed in (1, 2):
        transformer = Transformer(str(small_model), max_seq_length=32)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in transformer.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        routes.append([transformer, Pooling(32)])
    folder = tmp_path_factory.mktemp("router") / "model"
    model = SentenceTransformer(modules=[Router.for_query_document(*routes), Normalize()], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


async def test_a_router_model_sends_queries_and_documents_their_own_ways(router_model):
    reference = SentenceTransformer(str(router_model), device="cpu")
    local = local_of(router_model, precision="float32")
    await local.start()
    assert (local.describe().tasks, local.describe().runtime) == (("query", "document"), "openvino")
    queries, documents = await rows_of(local, "query"), await rows_of(local, "passage")
    assert_equal(queries, reference.encode_query(TEXTS))
    assert_equal(documents, reference.encode_document(TEXTS))
    assert_equal(await rows_of(local, None), reference.encode(TEXTS))
    assert np.abs(queries - documents).max() > 0.01
    mixed = [*local.preprocessor.prepare(replace_texts(local, "query"), NEVER).work.windows]
    mixed += local.preprocessor.prepare(replace_texts(local, "document"), NEVER).work.windows
    assert_equal(local.devices[0].encoder.embed(mixed), np.concatenate([queries, documents]))  # both in one batch
    unload(local)


class Never:
    def is_set(self):
        return False


NEVER = Never()


def replace_texts(local, name):
    from gateway.tests.engine.conftest import inputs_of

    return replace(inputs_of(*TEXTS), input_type=name)


async def test_routes_with_tokenizers_of_their_own_are_refused(router_model, tmp_path):
    import shutil

    folder = tmp_path / "unequal"
    shutil.copytree(router_model, folder)
    [path] = folder.glob("query_0_*/tokenizer.json")
    path.write_text(path.read_text().replace('"server"', '"servers"'))
    local = local_of(folder, runtime="torch")
    with pytest.raises(OperatorError, match="different tokenizers"):
        await local.start()
