"""Which tokenizers each front has: those that are small enough to be there as often as there are fronts."""

import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE, Unigram, WordPiece

from gateway.processes.model_states import is_tokenized_here
from gateway.tests.processes.engine_links import FAKE, LOCAL, running


def words(num_words):
    return [f"w{number}" for number in range(num_words)]


def unigram(num_words):
    return Unigram([(word, -1.0) for word in words(num_words)], unk_id=0)


def bpe(num_words):
    return BPE(vocab={word: number for number, word in enumerate(words(num_words))}, merges=[], unk_token="w0")


def word_piece(num_words):
    return WordPiece({word: number for number, word in enumerate(words(num_words))}, unk_token="w0")


@pytest.mark.parametrize(("network", "num_words", "is_here"), [
    (unigram, 250_000, True), (unigram, 60_000, False), (bpe, 152_000, False), (bpe, 250_000, True), (word_piece, 250_000, False),
])  # fmt: skip
async def test_a_large_tokenizer_stays_in_the_engine_process(tmp_path, network, num_words, is_here):
    async with running(tmp_path) as engine:
        model = engine.gateway.catalog.models[LOCAL]
        model.built.tokenizer.fast = FastTokenizer(network(num_words))
        model.built.tokenizer.max_id = num_words - 1
        assert is_tokenized_here(model) == is_here
        assert is_tokenized_here(engine.gateway.catalog.models[FAKE])  # its texts are another server's to tokenise
