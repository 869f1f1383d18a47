"""A reply is trusted with nothing: neither that it is complete nor that it is JSON."""

import base64
import json
import struct

import numpy as np
import pytest

from gateway.cli.load.reply import Refusal, WrongReply, check_reply, first_model, refusal
from gateway.wire.response import encode

VECTORS = np.array([[1.0, 0.0, 0.5], [0.25, -1.0, 0.0]], dtype=np.float32)


def good(encoding_format="base64"):
    return json.loads(encode(VECTORS, model="m", encoding_format=encoding_format, num_tokens=7))


def judged(reply, *, encoding_format="base64", dimensions=None):
    content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    return check_reply(content, num_inputs=2, encoding_format=encoding_format, dimensions=dimensions)


def with_embedding(embedding, encoding_format="base64"):
    reply = good(encoding_format)
    reply["data"][1]["embedding"] = embedding
    return reply


def packed(*numbers):
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@pytest.mark.parametrize("encoding_format", ["base64", "float"])
@pytest.mark.parametrize("dimensions", [None, 3])
def test_what_the_gateway_answers_is_good(encoding_format, dimensions):
    assert judged(good(encoding_format), encoding_format=encoding_format, dimensions=dimensions) == (3, 7)


def test_a_server_that_tells_no_usage_is_good_all_the_same():
    assert judged({"data": good()["data"]}) == (3, 0)
    assert judged({**good(), "usage": None}) == (3, 0)


WRONG = {
    "one too few": ({"data": good()["data"][:1]}, "wrong_count"),
    "one too many": ({"data": [*good()["data"], good()["data"][0]]}, "wrong_count"),
    "none": ({"data": []}, "wrong_count"),
    "another order": ({"data": good()["data"][::-1]}, "wrong_order"),
    "one of them twice": ({"data": [good()["data"][0]] * 2}, "wrong_order"),
    "no number": (with_embedding(packed(1, float("nan"), 0)), "not_finite"),
    "an infinite number": (with_embedding(packed(1, float("-inf"), 0)), "not_finite"),
    "one shorter": (with_embedding(packed(1, 0)), "wrong_length"),
    "one without numbers": (with_embedding(""), "wrong_length"),
    "half a number": (with_embedding(base64.b64encode(b"\0" * 10).decode()), "wrong_encoding"),
    "no base64": (with_embedding("!!!!"), "wrong_encoding"),
    "floats that nobody asked for": (good("float"), "wrong_encoding"),
    "no vectors": ({"data": [{"index": 0}, {"index": 1}]}, "unexpected_shape"),
    "fewer tokens than none": ({**good(), "usage": {"prompt_tokens": -1}}, "unexpected_shape"),
    "an error with status 200": ({"error": {"message": "no"}}, "unexpected_shape"),
    "a list": ([], "unexpected_shape"),
    "a page": (b"<html>", "not_json"),
    "no byte": (b"", "not_json"),
    "no UTF-8": (b'{"data": [{"index": 0, "embedding": "\xff"}]}', "not_json"),
    "depths": (b'{"x":' + b"[" * 100_000, "not_json"),
}


@pytest.mark.parametrize(("reply", "kind"), WRONG.values(), ids=WRONG)
def test_a_wrong_reply_is_an_error_of_its_kind(reply, kind):
    with pytest.raises(WrongReply) as caught:
        judged(reply)
    assert str(caught.value) == kind


@pytest.mark.parametrize(
    ("embedding", "kind"), [([1, 2], "wrong_length"), ([1, 2, None], "unexpected_shape"), (packed(1, 2, 3), "wrong_encoding")]
)
def test_a_wrong_vector_among_floats_is_an_error_too(embedding, kind):
    with pytest.raises(WrongReply, match=kind):
        judged(with_embedding(embedding, "float"), encoding_format="float")


def test_vectors_may_not_change_their_length_from_reply_to_reply():
    with pytest.raises(WrongReply, match="wrong_length"):
        judged(good(), dimensions=4)


REFUSALS = {
    "OpenAI's": ({"error": {"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded"}}, "rate_limit_exceeded"),
    "without a code": ({"error": {"message": "Slow down.", "type": "requests", "code": None}}, "requests"),
    "with a number for a code": ({"message": "Slow down.", "type": "Overloaded", "code": 429}, "Overloaded"),
    "a text": ({"error": "Slow down."}, ""),
    "a detail": ({"detail": "Slow down."}, ""),
    "a strange code": ({"error": {"message": "Slow\ndown.", "code": "a code\x1b[31m"}}, ""),
}


@pytest.mark.parametrize(("body", "code"), REFUSALS.values(), ids=REFUSALS)
def test_an_error_is_read_in_the_shapes_that_servers_have(body, code):
    told = refusal(json.dumps(body).encode())
    assert (told.code, told.message.replace(" ", "")) == (code, "Slowdown.")


def test_an_error_is_quoted_short_and_printable():
    told = refusal(json.dumps({"error": {"message": "\x1b[31m\n" + "x" * 10_000}}).encode())
    assert told.message.isprintable()
    assert len(told.message) < 400
    assert refusal(b"<html>") == refusal(b"[" * 100_000) == Refusal("", "")


def test_the_first_model_is_the_one_that_is_meant():
    assert first_model(b'{"object": "list", "data": [{"id": "a/b"}, {"id": "c"}]}') == "a/b"
    for content in (b'{"data": []}', b'{"data": [{"id": "\\u001b"}]}', b"{}", b"<html>", b'{"data": [{"name": "a"}]}'):
        assert first_model(content) is None
