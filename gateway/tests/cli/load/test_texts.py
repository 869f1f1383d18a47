"""What is sent: prose of its own, no text twice."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from gateway.cli.load.texts import NUM_SENTENCES, Texts, lines, sentences
from gateway.errors import OperatorError
from gateway.testing.folder import folder_of

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def test_no_text_is_sent_twice_however_long_a_run_is():
    texts = Texts(sentences(), label="Note 123456")
    taken = [text for _ in range(100) for text in texts.take(64)]
    assert len(set(taken)) == 6400
    assert all(text.startswith(f"Note 123456-{number}: ") for number, text in enumerate(taken, start=1))


def test_without_a_label_the_texts_go_round():
    texts = Texts(["a", "b", "c"], label=None)
    assert texts.take(2) + texts.take(5) == ["a", "b", "c", "a", "b", "c", "a"]


def test_the_sentences_are_always_the_same_and_have_40_tokens_on_average():
    tokenizer = Tokenizer.from_file(str(folder_of(MINILM, download=False) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert sentences() == sentences()
    counts = [len(encoding.ids) for encoding in tokenizer.encode_batch(Texts(sentences(), label="Note 123456").take(NUM_SENTENCES))]
    assert 38 <= sum(counts) / len(counts) <= 43
    assert min(counts) < 20
    assert 100 < max(counts) < 128


@pytest.mark.parametrize("sentence", sentences()[:8])
def test_a_sentence_reads_like_one(sentence: str):
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert not any(wrong in sentence for wrong in ("  ", " ,", " .", "..", ",."))


def test_the_lines_of_a_file_are_texts_and_blank_ones_are_not(tmp_path: Path):
    (tmp_path / "texts").write_text("one\n\n  \nzwei \u2028 Häuser\r\nlast", encoding="utf-8")
    assert lines(tmp_path / "texts") == ["one", "zwei \u2028 Häuser", "last"]


@pytest.mark.parametrize(("content", "words"), [(b"\n \n", "has no line"), (b"", "has no line"), (b"\xff\xfe", "is not UTF-8")])
def test_a_file_without_texts_is_refused(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "texts").write_bytes(content)
    with pytest.raises(OperatorError, match=words):
        lines(tmp_path / "texts")
    with pytest.raises(OperatorError, match="cannot be read"):
        lines(tmp_path)
