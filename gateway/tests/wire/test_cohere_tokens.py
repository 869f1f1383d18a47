"""Cohere's tokens: any bytes at all are a request or a client's error."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import ClientError, InputTooLong
from gateway.wire.cohere_tokens import DetokenizeRequest, decode_tokens

values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), st.lists, max_leaves=4)
bodies = st.fixed_dictionaries({}, optional=dict.fromkeys(["tokens", "model", "unknown"], values))


def outcome_of(raw) -> DetokenizeRequest | ClientError:
    try:
        return decode_tokens(raw)
    except ClientError as error:
        return error


@given(raw=st.binary(max_size=100) | bodies.map(lambda body: json.dumps({"model": "m", **body}).encode()))
@example(raw=b'{"model": "m", "tokens": [1, 2]}')
def test_any_bytes_are_a_request_or_a_400(raw):
    asked = outcome_of(raw)
    if isinstance(asked, ClientError):
        assert asked.status == 400
        assert asked.message
    else:
        assert asked.model
        assert asked.ids
        assert all(type(each) is int and each >= 0 for each in asked.ids)


@pytest.mark.parametrize("token", [b"1", b"1000000000"])
def test_the_bound_of_ids_does_not_depend_on_the_bytes_of_the_body(token):
    def body(num_ids: int) -> bytes:
        return b'{"model": "m", "tokens": [' + b",".join([token] * num_ids) + b"]}"

    assert len(decode_tokens(body(8192)).ids) == 8192
    with pytest.raises(InputTooLong):
        decode_tokens(body(8193))
