"""What becomes of a prompt: what of it is pooled, and where it stands in a text of several windows."""

import threading

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers

from gateway.config import LimitSettings
from gateway.embedding.embedder import Inputs
from gateway.engine.encoder import NetworkInfo
from gateway.engine.preprocessor import Preprocessor
from gateway.engine.tokenizer import SLICE, SLICE_CHARS, Tokenizer, slices
from gateway.errors import ClientError, InputTooLong, RequestTooLong
from gateway.tests.engine.conftest import embedded, inputs_of, local_of

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MAX_TOKENS = 12


def planner_of(tokenizer, **prompts):
    network = NetworkInfo(dimensions=4, max_tokens=MAX_TOKENS, is_normalized=False)
    return Preprocessor(network, tokenizer, prompts=prompts, rule="chunk", limits=LimitSettings())


def spelled(preprocessor, text, **more):
    """Each window as its letters, with how many tokens are its prompt's and what it weighs."""
    work = preprocessor.prepare(inputs_of(text, **more), threading.Event()).work
    letters = [
        preprocessor.tokenizer.fast.decode(window.token_ids, skip_special_tokens=False).replace(" ", "") for window in work.windows
    ]
    return list(zip(letters, [window.num_prompt_tokens for window in work.windows], work.weights, strict=True))


@pytest.fixture(params=[False, True], ids=["without special tokens", "with special tokens"])
def tokenizer(request):
    """A letter is a token; special tokens are a bracket before and one after the text."""
    from tokenizers import processors

    fast = FastTokenizer(models.WordLevel({letter: number for number, letter in enumerate(LETTERS + "[]")}, unk_token="a"))
    fast.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if request.param:
        fast.add_special_tokens(["[", "]"])
        fast.post_processor = processors.TemplateProcessing("[ $A ]", special_tokens=[("[", 26), ("]", 27)])
    return Tokenizer(fast.to_str())


def test_a_prompt_stands_in_every_window_and_weighs_nothing(tokenizer):
    preprocessor = planner_of(tokenizer, query="xyz")
    if tokenizer.num_special:
        expected = [("[xyzabcdefg]", 4, 7), ("[xyzhijklmn]", 4, 7), ("[xyzop]", 4, 2)]
    else:
        expected = [("xyzabcdefghi", 3, 9), ("xyzjklmnop", 3, 7)]
    assert spelled(preprocessor, "abcdefghijklmnop", input_type="query") == expected


def test_a_prompt_of_more_than_half_a_window_stands_in_the_first_alone(tokenizer):
    preprocessor = planner_of(tokenizer, query="tuvwxyz")
    if tokenizer.num_special:
        expected = [("[tuvwxyzabc]", 8, 3), ("[defghijklm]", 0, 10), ("[n]", 0, 1)]
    else:
        expected = [("tuvwxyzabcde", 7, 5), ("fghijklmn", 0, 9)]
    assert spelled(preprocessor, "abcdefghijklmn", input_type="query") == expected


def test_what_fits_and_what_is_cut_holds_the_prompt_once(tokenizer):
    preprocessor = planner_of(tokenizer, query="xyz")
    room = MAX_TOKENS - tokenizer.num_special - 3
    for text, more in ((LETTERS[:room], {}), (LETTERS, {"long_input": "end"})):
        [(letters, _, weight)] = spelled(preprocessor, text, input_type="query", **more)
        assert letters.strip("[]") == "xyz" + text[:room]
        assert weight == room


def test_texts_without_a_prompt_are_cut_as_ever(tokenizer):
    preprocessor = planner_of(tokenizer, query="xyz")
    room = MAX_TOKENS - tokenizer.num_special
    windows = spelled(preprocessor, LETTERS)
    assert [letters.strip("[]") for letters, _, _ in windows] == [LETTERS[start : start + room] for start in range(0, 26, room)]
    assert [weight for _, _, weight in windows] == [len(letters.strip("[]")) for letters, _, _ in windows]
    assert {num_prompt_tokens for _, num_prompt_tokens, _ in windows} == {0}


def test_a_prompt_that_fills_the_window_leaves_nothing_but_itself(tokenizer):
    preprocessor = planner_of(tokenizer, query="z" * 40)
    [(letters, num_prompt_tokens, _)] = spelled(preprocessor, "abc", input_type="query", long_input="end")
    assert letters.strip("[]") == "z" * (MAX_TOKENS - tokenizer.num_special)
    assert num_prompt_tokens == MAX_TOKENS - len(tokenizer.suffix)


async def test_a_long_prompted_text_is_the_mean_of_its_prompted_pieces(small_model):
    """Each window is what `encode` makes of that piece with its prompt."""
    model = SentenceTransformer(str(small_model), device="cpu", local_files_only=True)
    words = ["red", "green", "blue", "server", "text"] * 15
    pieces = [" ".join(words[start : start + 28]) for start in range(0, 75, 28)]  # 32 tokens: two special, two of the prompt
    parts = model.encode(pieces, prompt_name="query")
    local = local_of(small_model, runtime="torch", precision="float32")
    await local.start()
    rows, prepared = await embedded(local, " ".join(words), input_type="query", normalize=False)
    np.testing.assert_allclose(rows[0], np.average(parts, axis=0, weights=[28, 28, 19]), atol=1e-5)
    assert prepared.token_counts == [75 + 4]
    await local.close()


def test_texts_are_short_together_and_with_their_prompts(tokenizer):
    preprocessor = planner_of(tokenizer, query="xyz")
    assert preprocessor.is_short(inputs_of("a" * 256))
    assert preprocessor.is_short(inputs_of("a" * 128, "a" * 128))
    assert not preprocessor.is_short(inputs_of("a" * 128, "a" * 129))
    assert not preprocessor.is_short(inputs_of("a" * 254, input_type="query"))


def counting(preprocessor, *texts):
    """The error such a request gets, and how many tokens had been counted before it."""
    inputs = Inputs(list(texts), is_array=True, caller="", deadline=0)
    with pytest.raises(ClientError) as caught:
        preprocessor.prepare(inputs, threading.Event())
    return caught.value


LONG = "a" * 20_000  # tokens: more than an input may have
FULL = "a" * 15_000


@pytest.mark.parametrize(
    ("texts", "kind", "num_counted"),
    [
        ([LONG], InputTooLong, 20_000),
        ([LONG] * 100, InputTooLong, 13 * 20_000),
        (["a"] * 2047 + [LONG], InputTooLong, 2047 + 20_000),
        ([FULL] * 200, RequestTooLong, 41 * 15_000),
        ([FULL] * 41, RequestTooLong, 41 * 15_000),
    ],
    ids=["one", "a hundred", "the last of many", "too many together", "just too many"],
)
def test_what_may_not_be_served_is_refused_as_soon_as_it_is_known_and_tells_what_was_counted(texts, kind, num_counted):
    fast = FastTokenizer(models.WordLevel({letter: number for number, letter in enumerate(LETTERS)}, unk_token="a"))
    fast.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    error = counting(planner_of(Tokenizer(fast.to_str())), *texts)
    assert isinstance(error, kind)
    assert num_counted <= error.num_wasted_tokens <= num_counted + SLICE_CHARS


def test_slices_hold_every_text_in_order_and_are_bounded():
    texts = [str(number) * (1 + number % 7) for number in range(1000)] + ["x" * (SLICE_CHARS + 1), "y", "z" * SLICE_CHARS, "w"]
    parts = list(slices(texts))
    assert [text for part in parts for text in part] == texts
    assert all(len(part) <= SLICE and (len(part) == 1 or sum(map(len, part)) <= SLICE_CHARS) for part in parts)
    assert max(map(len, parts)) == SLICE
