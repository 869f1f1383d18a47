"""Any bytes at all become a request or a 400: never another exception, never half a request."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import ClientError
from gateway.wire.foreign_fields import FIELDS as FOREIGN
from gateway.wire.request import EmbeddingsRequest, decode

FIELDS = ["input", "model", "encoding_format", "output_dtype", "dimensions", "user", "normalize", "long_input", "input_type"]
WORDS = ["", "m", "hello", "float", "int8", "base64", "chunk", "end", "error", "query", "document", "\ud800", "é\U0001f99c", "\0"]
NUMBERS = [-1, 0, 1, 15339, 100255, 100256, 100257, 100276, 2**31, 2**63, 2**64, 2**70]

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers() | st.sampled_from(NUMBERS),
    st.floats(),
    st.text() | st.sampled_from(WORDS),
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=4)
)
inputs = st.one_of(
    st.text(),
    st.lists(st.text(), max_size=3),
    st.lists(st.sampled_from(NUMBERS), max_size=3),
    st.lists(st.lists(st.integers(0, 100_300), max_size=3), max_size=3),
    values,
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "input": inputs,
        "model": st.sampled_from(WORDS) | values,
        **{field: st.sampled_from(WORDS) | values for field in FIELDS[2:]},
        "unknown": values,
    },
)


def check(raw: bytes) -> None:
    outcome = outcome_of(raw)
    if isinstance(outcome, ClientError):
        assert outcome.status == 400
        assert outcome.code
        assert outcome.param is None or outcome.param in {*FIELDS, *FOREIGN}
        assert len(outcome.message.encode()) < 1000
    else:
        assert outcome.model
        assert outcome.texts
        assert all(outcome.texts)
        "".join([*outcome.texts, outcome.model]).encode()  # what could not be written again must not get in


def outcome_of(raw: bytes) -> EmbeddingsRequest | ClientError:
    try:
        return decode(raw)
    except ClientError as error:
        return error


@given(raw=st.binary(max_size=400))
@example(raw=b'{"input":"a","model":"m"}')
@example(raw=b'\xef\xbb\xbf{"input":"a","model":"m"}')
def test_any_bytes_are_a_request_or_a_400(raw):
    check(raw)


@given(raw=st.binary(max_size=40), place=st.integers(0, 60))
def test_any_bytes_inside_a_good_body_are_a_request_or_a_400(raw, place):
    good = b'{"model":"m","input":["hello","world"],"dimensions":8,"x":[1]}'
    check(good[:place] + raw + good[place:])


@given(body=bodies | values)
@example(body=1.5)
@example(body=-(2**63) - 1)
def test_any_json_is_a_request_or_a_400(body):
    check(json.dumps(body).encode())
    check(json.dumps(body, ensure_ascii=False).encode("utf-8", errors="surrogatepass"))
