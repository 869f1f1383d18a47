"""A query and its documents become the tokens that CrossEncoder gives its network, and are cut as it cuts them."""

import random
import threading
import tracemalloc
from dataclasses import replace

import pytest
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers

from gateway.config import LimitSettings
from gateway.embedding.embedder import Inputs
from gateway.engine.encoder import NetworkInfo
from gateway.engine.pair_checkpoint import network_of
from gateway.engine.pairs import RenderedPairs, common_end, longest_first, pair_tokenizer
from gateway.engine.preprocessors import preprocessor_of, preprocessor_of_texts
from gateway.engine.settings import LocalSettings
from gateway.engine.tokenizer import SLICE_CHARS, Tokenizer
from gateway.testing.rerankers import KINDS, causal_reranker_of, reranker_of

QUERIES = ["where is the moon?", " ", "Größe 你好 مرحبا 🙂", "{document} {query} Qz7document7zQ", "long query " * 60]
DOCUMENTS = ["the moon is above", "", "\n", " a leading space", "{query}", "[SEP] [CLS]", "<|im_end|>", "long text " * 300]
ROOM = 192


@pytest.fixture(scope="module", params=[*KINDS, "causal", "causal without a template"])
def reranker(request, tmp_path_factory):
    """A reranker, its network's properties, and its pair tokenizer."""
    folder = tmp_path_factory.mktemp("reranker")
    if request.param in KINDS:
        whole = reranker_of(request.param, folder)
    else:
        form = {} if request.param == "causal" else {"template": None}
        whole = causal_reranker_of(folder, prompts={"search": "Answer: "}, default_prompt_name="search", **form)
    model = CrossEncoder(str(whole), device="cpu", local_files_only=True)
    network = network_of(whole, model)
    return model, network, pair_tokenizer(network, Tokenizer(model.tokenizer.backend_tokenizer.to_str()))


def test_a_pair_has_the_tokens_and_types_that_cross_encoder_gives_it(reranker):
    model, network, pairs = reranker
    for query in QUERIES:
        [*found] = pairs.pairs(pairs.question(query, network.default_prompt), DOCUMENTS, threading.Event())
        for document, pair in zip(DOCUMENTS, [pair for part in found for pair in part], strict=True):
            window = pairs.cut(pair, network.max_tokens)
            features = model.preprocess([(query, document)], prompt=model.prompts.get(model.default_prompt_name or ""))
            assert window.token_ids == features["input_ids"][0].tolist(), (query, document)
            if network.reads_token_types:
                types = features["token_type_ids"][0].tolist()
                assert types == [0] * window.num_query_tokens + [1] * (len(window) - window.num_query_tokens)


def test_only_networks_that_read_token_types_get_them(reranker):
    model, network, _ = reranker
    assert network.reads_token_types == (model.config.model_type in {"bert", "electra"})


@pytest.mark.parametrize("seed", range(3))
def test_texts_are_cut_longest_first_as_the_tokenizers_library_does(seed):
    fast = FastTokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    chance = random.Random(seed)
    for _ in range(200):
        room, num_query, num_document = (chance.randint(1, 40) for _ in range(3))
        fast.enable_truncation(room, strategy="longest_first")
        owners = fast.encode("a " * num_query, "b " * num_document).sequence_ids
        assert longest_first(num_query, num_document, room) == (owners.count(0), owners.count(1))


def test_an_instruction_takes_the_place_of_the_templates_own(tmp_path):
    whole = causal_reranker_of(tmp_path)
    model = CrossEncoder(str(whole), device="cpu", local_files_only=True)
    network = network_of(whole, model)
    assert network.pair_format[1::2] == ("instruction", "query", "document")
    assert network.default_prompt == "Find passages that answer the query"
    pairs = pair_tokenizer(network, Tokenizer(model.tokenizer.backend_tokenizer.to_str()))
    [[pair]] = pairs.pairs(pairs.question("q", "Find poems"), ["d"], threading.Event())
    expected = model.preprocess([("q", "d")], prompt="Find poems")["input_ids"][0].tolist()
    assert pairs.cut(pair, network.max_tokens).token_ids == expected


def test_a_template_that_begins_or_ends_with_a_text_is_split_there():
    fast = FastTokenizer(models.WordLevel({"a": 0, "b": 1, "x": 3, "[UNK]": 2}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(fast.to_str())
    pairs = RenderedPairs(("", "query", " x ", "document", ""), tokenizer)
    [[pair]] = pairs.pairs(pairs.question("a a"), ["b b b"], threading.Event())
    assert (pair.head, pair.content, pairs.suffix) == ([0, 0, 3], [1, 1, 1], [])
    assert common_end([1, 2, 3], [9, 2, 3], [2, 3]) == [2, 3]


def test_a_long_query_is_joined_with_no_more_documents_than_are_tokenized_next():
    """Or a request of 60 KB, refused by its tokens after the first slice, would take 40 MB of text."""
    fast = FastTokenizer(models.WordLevel({"a": 0, "b": 1, "x": 3, "[UNK]": 2}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    pairs = RenderedPairs(("", "query", " x ", "document", ""), Tokenizer(fast.to_str()))
    question = pairs.question("a " * 10_000)
    tracemalloc.start()
    try:
        first = next(pairs.pairs(question, ["b"] * 2000, threading.Event()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(first) * len(question.text) <= SLICE_CHARS
    assert peak < 10_000_000


def test_the_tokens_of_a_text_by_itself_are_without_the_rerankers_instruction():
    fast = FastTokenizer(models.WordLevel({"a": 0, "b": 1, "x": 3, "[UNK]": 2}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    form = ("", "instruction", " x ", "query", " x ", "document", "")
    network = NetworkInfo(
        kind="reranker", dimensions=1, max_tokens=64, is_normalized=False, prompts={"p": "a a "}, default_prompt="a a ",
        pair_format=form,
    )  # fmt: skip
    pairs = preprocessor_of(network, Tokenizer(fast.to_str()), LocalSettings(source="m"), LimitSettings())
    inputs = Inputs(["b"], is_array=False, caller="c", deadline=1e12)
    for asked in (inputs, replace(inputs, input_type="p")):
        [tokens] = preprocessor_of_texts(pairs).tokens(asked, threading.Event(), add_special_tokens=True)
        assert (tokens.text, tokens.ids) == ("b", [1])
    prepared = pairs.prepare(replace(inputs, query="b b"), threading.Event())
    assert prepared.work.windows[0].token_ids == [0, 0, 3, 1, 1, 3, 1]
