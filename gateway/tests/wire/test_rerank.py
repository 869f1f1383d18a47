"""The body that Cohere, Jina, Voyage, vLLM and LiteLLM share: every field is honoured or refused by name."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import ClientError
from gateway.wire import tei_rerank
from gateway.wire.rerank import RerankRequest, decode

GOOD = {"model": "m", "query": "q", "documents": ["a", "b"]}


def decoded(**body):
    return decode(json.dumps({**GOOD, **body}).encode())


def refused(**body):
    with pytest.raises(ClientError) as caught:
        decoded(**body)
    return caught.value.code, caught.value.param


def test_the_least_that_a_body_has():
    assert decoded() == RerankRequest(model="m", query="q", texts=["a", "b"])


def test_null_equals_absent():
    names = ["top_n", "top_k", "return_documents", "raw_scores", "rank_fields", "max_tokens_per_doc", "max_chunks_per_doc",
             "long_input", "instruction", "truncate", "truncation", "truncate_prompt_tokens", "relevant_spans",
             "return_embeddings", "use_activation", "max_tokens_per_query", "chat_template"]  # fmt: skip
    assert decoded(**dict.fromkeys(names)) == decoded()


@pytest.mark.parametrize("name", ["query", "documents", "model"])
def test_what_is_missing_is_named(name):
    for body in ({each: value for each, value in GOOD.items() if each != name}, {**GOOD, name: None}):
        with pytest.raises(ClientError) as caught:
            decode(json.dumps(body).encode())
        assert (caught.value.code, caught.value.param) == ("missing_required_parameter", name)


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ({"top_n": 3}, "top_n", 3),
        ({"top_n": 3.0}, "top_n", 3),
        ({"top_k": 3}, "top_n", 3),
        ({"top_k": 3, "top_n": 3}, "top_n", 3),
        ({"return_documents": True}, "return_documents", True),
        ({"raw_scores": True}, "raw_scores", True),
        ({"use_activation": False}, "raw_scores", True),
        ({"use_activation": True}, "raw_scores", False),
        ({"activation": False}, "raw_scores", True),
        ({"long_input": "error"}, "long_input", "error"),
        ({"truncate": True}, "long_input", "end"),
        ({"truncate": "NONE"}, "long_input", "error"),
        ({"truncation": False}, "long_input", "error"),
        ({"truncate_prompt_tokens": -1}, "long_input", "end"),
        ({"truncate_prompt_tokens": 512}, "max_tokens", 512),
        ({"truncation_side": "right", "truncation_direction": "Right"}, "long_input", None),
        ({"max_chunks_per_doc": 1}, "long_input", "end"),
        ({"max_chunks_per_doc": 1.0, "long_input": "end"}, "long_input", "end"),
        ({"max_chunks_per_doc": 10}, "max_chunks_per_doc", 10),
        ({"max_tokens_per_doc": 4096}, "max_tokens_per_doc", 4096),
        ({"instruction": "Find it"}, "instruction", "Find it"),
        ({"priority": 5}, "is_background", True),
        ({"priority": 0}, "is_background", False),
        ({"return_embeddings": False, "add_special_tokens": True, "relevant_spans": {"mode": "disabled"}}, "texts", ["a", "b"]),
        ({"user": "u", "priority": 0, "unknown": [{}]}, "texts", ["a", "b"]),
    ],
)
def test_a_field_is_honoured(body, field, value):
    assert getattr(decoded(**body), field) == value


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"query": ""}, "invalid_value", "query"),
        ({"query": 5}, "invalid_type", "query"),
        ({"query": {"image": "x"}}, "invalid_type", "query"),
        ({"query": ["q"]}, "invalid_type", "query"),
        ({"documents": []}, "invalid_value", "documents"),
        ({"documents": "a"}, "invalid_type", "documents"),
        ({"documents": {"text": "a"}}, "invalid_type", "documents"),
        ({"documents": ["a", 5]}, "invalid_type", "documents"),
        ({"documents": ["a", None]}, "invalid_type", "documents"),
        ({"documents": ["a", ["b"]]}, "invalid_type", "documents"),
        ({"documents": [{"image": "x"}]}, "invalid_type", "documents"),
        ({"documents": [{"text": 5}]}, "invalid_type", "documents"),
        ({"documents": [{"text": None}]}, "invalid_type", "documents"),
        ({"documents": ["a"] * 8193}, "array_above_max_length", "documents"),
        ({"documents": [{"text": "a"}] * 8193}, "array_above_max_length", "documents"),
        ({"documents": [5] * 100_000}, "array_above_max_length", "documents"),
        ({"documents": ["abc"] * 100_000}, "array_above_max_length", "documents"),
        ({"top_n": 0}, "invalid_value", "top_n"),
        ({"top_n": -1}, "invalid_value", "top_n"),
        ({"top_n": 1.5}, "invalid_type", "top_n"),
        ({"top_n": "1"}, "invalid_type", "top_n"),
        ({"top_n": True}, "invalid_type", "top_n"),
        ({"top_n": 2**70}, "invalid_value", "top_n"),
        ({"top_k": 0}, "invalid_value", "top_k"),
        ({"top_k": 2, "top_n": 3}, "invalid_value", "top_k"),
        ({"return_documents": "yes"}, "invalid_type", "return_documents"),
        ({"raw_scores": 1}, "invalid_type", "raw_scores"),
        ({"raw_scores": True, "use_activation": True}, "invalid_value", "use_activation"),
        ({"use_activation": True, "activation": False}, "invalid_value", "activation"),
        ({"activation": "softmax"}, "invalid_value", "activation"),
        ({"rank_fields": []}, "invalid_value", "rank_fields"),
        ({"rank_fields": ["a", "a"]}, "invalid_value", "rank_fields"),
        ({"rank_fields": "text"}, "invalid_type", "rank_fields"),
        ({"rank_fields": ["body"], "documents": [{"text": "a"}]}, "invalid_type", "documents"),
        ({"rank_fields": ["body"], "documents": [{"body": ["a"]}]}, "invalid_type", "documents"),
        ({"max_tokens_per_doc": 0}, "invalid_value", "max_tokens_per_doc"),
        ({"max_chunks_per_doc": 0}, "invalid_value", "max_chunks_per_doc"),
        ({"max_chunks_per_doc": 1, "long_input": "chunk"}, "invalid_value", "max_chunks_per_doc"),
        ({"max_chunks_per_doc": 1, "truncation": False}, "invalid_value", "max_chunks_per_doc"),
        ({"long_input": "start"}, "invalid_value", "long_input"),
        ({"long_input": "error", "truncation": True}, "invalid_value", "truncation"),
        ({"truncate": True, "truncation": False}, "invalid_value", "truncation"),
        ({"truncate": "START"}, "invalid_value", "truncate"),
        ({"truncate_prompt_tokens": 0}, "invalid_value", "truncate_prompt_tokens"),
        ({"truncation_side": "left"}, "invalid_value", "truncation_side"),
        ({"truncation_direction": "left"}, "invalid_value", "truncation_direction"),
        ({"relevant_spans": {"mode": "enabled"}}, "invalid_value", "relevant_spans"),
        ({"return_embeddings": True}, "invalid_value", "return_embeddings"),
        ({"max_tokens_per_query": 5}, "invalid_value", "max_tokens_per_query"),
        ({"overlap_tokens": 5}, "invalid_value", "overlap_tokens"),
        ({"add_special_tokens": False}, "invalid_value", "add_special_tokens"),
        ({"chat_template": "x"}, "invalid_value", "chat_template"),
        ({"priority": -1}, "invalid_value", "priority"),
        ({"priority": True}, "invalid_value", "priority"),
        ({"instruction": ""}, "invalid_value", "instruction"),
        ({"instruction": "x" * 2049}, "invalid_value", "instruction"),
        ({"model": 5}, "invalid_type", "model"),
    ],
)
def test_a_field_is_refused_by_name(body, code, param):
    assert refused(**body) == (code, param)


def test_the_place_of_a_wrong_document_is_named():
    with pytest.raises(ClientError, match=r"'documents\[2\]': expected a string, or an object with a string 'text'"):
        decoded(documents=["a", {"text": "b"}, 5])
    with pytest.raises(ClientError, match=r"'documents\[1\]\.title': expected a string"):
        decoded(documents=["a", {"title": {}}], rank_fields=["title"])
    with pytest.raises(ClientError) as caught:
        decoded(documents=[{"a" * 9999: {}}], rank_fields=["a" * 9999])
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("name", ['"', "\\", "a\nb", "", "_0", "für", "\U0001f600"])
def test_a_rank_field_may_have_any_name(name):
    assert decoded(documents=[{name: "a", "text": "b"}, {name: 7}], rank_fields=[name, "text"]).texts == ["a\nb", "7"]


def test_a_number_is_the_text_of_rank_fields_alone():
    assert decoded(documents=[{"text": 5}, {"text": True}], rank_fields=["text"]).texts == ["5", "true"]
    with pytest.raises(ClientError, match="a string 'text'"):
        decoded(documents=[{"text": 5}])


def test_a_byte_order_mark_and_half_a_surrogate_pair():
    body = b'\xef\xbb\xbf{"model":"m","query":"q \\ud800","documents":["a","\\udfff",{"text":"\\ud83d\\ude00 \\ud83d"}]}'
    assert decode(body).query == "q �"
    assert decode(body).texts == ["a", "�", "\U0001f600 �"]


FIELDS = ["model", "top_n", "return_documents", "raw_scores", "max_tokens_per_doc", "max_chunks_per_doc", "long_input", "truncate",
          "top_k", "instruction", "return_text", "truncation_direction"]  # fmt: skip
WORDS = ["", "m", "text", "end", "\ud800", "é\U0001f99c", "\0"]
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text() | st.sampled_from(WORDS))
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", *FIELDS]) | st.text(), inner, max_size=4),
)
documents = st.lists(st.text() | st.fixed_dictionaries({"text": st.text()}) | values, max_size=4)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "query": st.text() | values, "documents": documents | values, "texts": documents | values,
        "rank_fields": st.lists(st.sampled_from(["text", "a"]) | st.text(), max_size=3) | values,
        **{field: st.sampled_from(WORDS) | values for field in FIELDS},
    },
)  # fmt: skip


def outcome_of(raw, parse):
    try:
        return parse(raw)
    except ClientError as error:
        return error


def check(raw, parse):
    found = outcome_of(raw, parse)
    if isinstance(found, ClientError):
        assert found.status == 400
        assert found.code
        assert len(found.message.encode()) < 1000
    if isinstance(found, RerankRequest):
        assert found.model
        assert found.texts
        "".join([*found.texts, found.query, found.model]).encode()  # what could not be written again must not get in
        for each in found.documents or ():
            json.loads(bytes(each))


@pytest.mark.parametrize("parse", [decode, tei_rerank.decode, tei_rerank.is_tei])
@given(raw=st.binary(max_size=400), place=st.integers(0, 60))
@example(raw=b'{"query":"a","documents":["b"],"model":"m"}', place=0)
def test_any_bytes_are_a_request_or_a_400(parse, raw, place):
    good = b'{"model":"m","query":"q","documents":["hello",{"text":"a"}],"texts":["b"],"top_n":1}'
    check(raw, parse)
    check(good[:place] + raw + good[place:], parse)


@pytest.mark.parametrize("parse", [decode, tei_rerank.decode, tei_rerank.is_tei])
@given(body=bodies | values)
@example(body={"query": "a", "model": "m", "documents": [{"a": 5, "text": "b"}], "rank_fields": ["a", "text"]})
def test_any_json_is_a_request_or_a_400(parse, body):
    check(json.dumps(body).encode(), parse)
    check(json.dumps(body, ensure_ascii=False).encode("utf-8", errors="surrogatepass"), parse)
