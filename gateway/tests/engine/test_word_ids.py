"""The ids of a text, put together from those of its words, are the tokenizer's own, to the last one."""

import threading
import time
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from gateway.engine import word_ids
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.word_ids import MAX_WORD_CHARS, MAX_WORDS, BertWordIds, NoWordIds, word_ids_of
from gateway.testing.small_model import small_tokenizer

WORDS = ["the", "a", "un", "##aff", "##able", "##s", "Cased", "3", "##5", "don", "'", "t", ".", ",", "[", "]", "##cls", "cls"]


def bert(*, lowercase=True, clean_text=True, added=()):
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    fast = FastTokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=lowercase, clean_text=clean_text)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    fast.add_tokens(list(added))
    return fast


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def words(request):
    found = word_ids_of(bert(lowercase=request.param))
    assert isinstance(found, BertWordIds)
    return found


pieces = st.one_of(
    st.sampled_from([*WORDS, "unaffable", "The", "[CLS]", "[MASK] ", "\t", "\n", "  ", "x" * 101]), st.text(max_size=4)
)
texts = st.lists(pieces, max_size=12).map("".join)


@given(texts)
@example("")
@example("".join(map(chr, range(128))))
@example(" ".join(map(chr, range(128))))
@example("a" * 100 + " " + "a" * 101)
@settings(deadline=None, max_examples=300)
def test_they_are_the_tokenizers_own_or_none(words, text):
    expected = words.fast.encode(text, add_special_tokens=False).ids
    for _ in range(2):  # of words that are new, and known
        assert words.ids(text) in (expected, None)


@pytest.mark.parametrize("text", ["the unaffables, don't 3.5", "The [cls]\r\n\tCASED", "", "~ ^ the|a", "x" * 500])
def test_printable_ascii_takes_the_short_way(words, text):
    assert words.ids(text) == words.fast.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", ["the [CLS]", "caf\u00e9", "un\x00affable", "the\x0ba", "the\x1fa", "the\x7fa", "the\x85a"])
def test_what_words_alone_do_not_decide_takes_the_long_way(words, text):
    assert words.ids(text) is None


@pytest.mark.parametrize(
    "fast",
    [
        bert(clean_text=False),
        bert(added=[AddedToken("the a", normalized=True)]),
        FastTokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")),
    ],
    ids=["control characters stay", "a token of two words", "words are not split"],
)
def test_tokenizers_of_other_kinds_take_the_long_way(fast):
    found = word_ids_of(fast)
    assert isinstance(found, NoWordIds)
    assert found.ids("the a") is None


@pytest.mark.parametrize("text", ["Zoo", "the, a", "a zOO"])
def test_words_are_no_added_token_for_being_in_lower_case_or_side_by_side(text):
    words = word_ids_of(bert(added=[AddedToken("zoo", normalized=False), AddedToken("the a", normalized=False)]))
    assert isinstance(words, BertWordIds)
    words.ids(",")  # known: so the words around it are learnt together
    assert words.ids(text) in (words.fast.encode(text, add_special_tokens=False).ids, None)


def test_what_is_remembered_is_bounded_in_words_and_bytes():
    words = word_ids_of(bert())
    tracemalloc.start()
    for number in range(0, 3 * MAX_WORDS, 100):
        words.ids(" ".join(f"word{each}" for each in range(number, number + 100)))
        assert len(words.known) <= MAX_WORDS
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert allocated < 6_000_000
    words.ids("y" * (MAX_WORD_CHARS + 1))
    assert not any(len(word) > MAX_WORD_CHARS for word in words.known)


def test_a_request_of_more_words_than_are_remembered_gets_all_its_ids(monkeypatch):
    monkeypatch.setattr(word_ids, "MAX_WORDS", 3)
    words = word_ids_of(bert())
    text = "the a unaffable don't , [ ] 3 35"
    for _ in range(2):
        assert words.ids(text) == words.fast.encode(text, add_special_tokens=False).ids
    assert len(words.known) <= 9


def test_threads_that_learn_at_once_agree():
    words, failures = word_ids_of(bert()), []

    def run(seed):
        for number in range(300):
            text = f"the un{number % 50}affable {seed * number} a don't"
            if words.ids(text) != words.fast.encode(text, add_special_tokens=False).ids:
                failures.append(text)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("has_spare_cores", [True, False])
@pytest.mark.parametrize("text", ["the a unaffable", "caf\u00e9 " * 60, "the a " * 400, "the caf\u00e9 " * 400])
def test_a_tokenizer_gives_the_same_ids_by_either_way(text, has_spare_cores):
    tokenizer = Tokenizer(small_tokenizer().backend_tokenizer.to_str(), has_spare_cores=has_spare_cores)
    texts = [text, "the", text, "of a model", "caf\u00e9"] * 30
    expected = [tokenizer.fast.encode(each, add_special_tokens=False).ids for each in texts]
    assert tokenizer.ids(text) == expected[0]
    assert list(tokenizer.content_ids([text], threading.Event())) == [expected[:1]]
    assert [ids for part in tokenizer.content_ids(texts, threading.Event()) for ids in part] == expected


def test_one_long_text_leaves_the_event_loop_its_turns():
    """Tokenised in another thread, as the embedder does. `encode` would keep the GIL to its end."""
    tokenizer = Tokenizer(small_tokenizer().backend_tokenizer.to_str())
    thread = threading.Thread(target=tokenizer.ids, args=("the server of a model " * 50_000,))
    thread.start()
    num_turns = 0
    while thread.is_alive():
        time.sleep(0)
        num_turns += 1
    assert num_turns > 10
