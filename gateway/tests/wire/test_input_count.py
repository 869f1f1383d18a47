"""What has far too many elements is refused before they become objects; what has as many as it may is read as ever."""

import json
import tracemalloc

import pytest

from gateway.errors import InputTooLong, InvalidJSON, InvalidType, MissingParameter, RequestTooLong, TooManyInputs
from gateway.wire.input_count import element_decoder
from gateway.wire.request import decode
from gateway.wire.tei import decode_vertex

MB = 1024 * 1024
MAX_MB = 20  # beside the body: a copy of it, and few objects


def body(*elements, times, end="", space=""):
    """An input of these elements again and again."""
    return f'{{"model": "m", "input":{space}[{space}{",".join([*elements] * times)}{end}]}}'.encode()


TOO_MANY = {
    "texts": (body('"a"', times=4 * MB - 20), TooManyInputs),
    "arrays": (body("[1]", times=4 * MB - 20), TooManyInputs),
    "arrays of floats": (body("[1.0]", times=2 * MB), TooManyInputs),
    "a mixture": (body('"a"', "1", times=2 * MB), TooManyInputs),
    "objects": (body("{}", times=2 * MB), TooManyInputs),
    "ids": (body("1000", times=3 * MB), InputTooLong),
    "ids behind white space": (body("1000", times=2 * MB, space=" \n\t "), InputTooLong),
    "floats": (body("1.0", times=3 * MB), InputTooLong),
    "ids in one array": (body(f"[{','.join(['1'] * 4 * MB)}]", times=1), RequestTooLong),
    "ids in a thousand arrays": (body(f"[{','.join(['1'] * 4000)}]", times=1000), RequestTooLong),
    "no end": (body('"a"', times=4 * MB, end=",")[:-2], InvalidJSON),
    "a deep end": (body('"a"', times=2 * MB, end=',{"a":' + "[" * 100_000), InvalidJSON),
    "in a field of another kind": (f'{{"model": [{",".join(["[1]"] * MB)}], "input": "a"}}'.encode(), InvalidType),
}


@pytest.mark.parametrize(("raw", "kind"), TOO_MANY.values(), ids=TOO_MANY)
def test_too_many_elements_are_refused_before_they_take_memory(raw, kind):
    element_decoder()  # made once, of 8,192 fields
    tracemalloc.start()
    try:
        with pytest.raises(kind):
            decode(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_MB * MB


def test_inputs_of_many_bodies_are_counted_together_before_they_take_memory():
    instance = f'{{"inputs": [{",".join(["[1]"] * 1990)}]}}'
    raw = f'{{"instances": [{",".join([instance] * 1990)}]}}'.encode()
    tracemalloc.start()
    try:
        with pytest.raises(TooManyInputs):
            decode_vertex(raw, default_model="m")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MAX_MB * MB


def test_the_words_are_those_of_any_array_that_is_too_long():
    with pytest.raises(TooManyInputs) as caught:
        decode(TOO_MANY["texts"][0])
    assert caught.value.message == "Invalid 'input': array length must be 2048 or less. Your request has more than 8192 inputs."


LARGEST = {
    "ids of one input": list(range(8192)),
    "ids of many": [[7] * 8192] * 36 + [[7] * 5088],
    "texts": ["a, [b], {c} " * 400] * 2048,
    "a text": "a, [b]" * 100_000,
}


@pytest.mark.parametrize("sent", LARGEST.values(), ids=LARGEST)
def test_as_many_as_there_may_be_are_read(sent):
    raw = json.dumps({"input": sent, "model": "m"}, indent=2).encode()
    assert len(raw) > 64 * 1024
    assert decode(raw).texts


@pytest.mark.parametrize("sent", [{"a": "b" * 100_000}, None, 5], ids=["an object", "nothing", "a number"])
def test_what_is_no_array_is_told_so(sent):
    with pytest.raises((InvalidType, MissingParameter)):
        decode(json.dumps({"input": sent, "model": "m", "x": "y" * 100_000}).encode())
