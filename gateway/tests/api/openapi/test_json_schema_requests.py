"""What the schema of a request refuses, the parser refuses, and the reverse as far as JSON Schema can say it."""

import json

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.access.keys.policy import KeyPolicy, policy_of
from gateway.api.admin import grace_of
from gateway.api.admin_schema import AFTER, BY, KEY_ID, LIMIT, OFFSET, SINCE, KeyRotation
from gateway.api.openapi.admin_operations import NEEDS_RATE
from gateway.api.openapi.document import RequestBounds, bounded
from gateway.api.openapi.json_schema import components
from gateway.errors import ClientError
from gateway.tests.api.test_error_handler import BAD_REQUESTS
from gateway.wire.foreign_fields import FIELDS
from gateway.wire.request import MAX_DIMENSIONS, EmbeddingsBody, decode

SCHEMAS = components([EmbeddingsBody, KeyPolicy, KeyRotation], [])
EXAMPLES = 200


def checked(schema):
    return jsonschema.Draft202012Validator({**schema, "components": {"schemas": SCHEMAS}})


REQUEST = checked(bounded(SCHEMAS["EmbeddingsBody"], RequestBounds()))
WITH_DEFAULT = checked(bounded(SCHEMAS["EmbeddingsBody"], RequestBounds(default_model="d")))
POLICY = checked({"allOf": [SCHEMAS["KeyPolicy"], *NEEDS_RATE]})
ROTATION = checked(SCHEMAS["KeyRotation"])

IDS = [-1, 0, 1, 100255, 100256, 100257, 100260, 100261, 100276, 100277, 2**70, 1.0, 1.5]
WORDS = ["", "a", "float", "base64", "chunk", "end", "error", "Chunk", "query", "x" * 2048, "x" * 2049, "🦜" * 2048]
NUMBERS = [-1, 0, 1, 2, 3.0, 3.5, MAX_DIMENSIONS, MAX_DIMENSIONS + 1, 2**70, -(2**70), True]
texts = st.sampled_from(WORDS[:3]) | st.text(max_size=3)
ids = st.sampled_from(IDS)
values = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.just([]), st.just({}))
inputs = st.one_of(
    values,
    texts,
    st.lists(texts, max_size=3),
    st.lists(ids, max_size=3),
    st.lists(st.lists(ids, max_size=2) | texts, max_size=3),
    st.lists(st.dictionaries(st.sampled_from(["text", "image"]), values, max_size=2), max_size=2),
)
OWN = [name for name in EmbeddingsBody.__struct_fields__ if name != "input" and name not in FIELDS]
bodies = st.fixed_dictionaries({}, optional={"input": inputs, **dict.fromkeys([*OWN, "other"], values)})


def is_parsed(body, **named):
    try:
        decode(json.dumps(body).encode(), **named)
    except ClientError:
        return False
    return True


@settings(max_examples=EXAMPLES, deadline=None)
@given(bodies | bodies.map(lambda body: {"input": "a", "model": "m", **body}))
@example({"input": [1.0], "model": "m", "dimensions": 128.0})
@example({"input": "a", "model": "m", "input_type": "query", "prompt_name": None})
@example({"input": "a", "model": "m", "input_type": "query", "prompt_name": "query"})
@example({"input": "a", "model": ""})
def test_a_body_is_parsed_where_the_schema_allows_it_and_nowhere_else(body):
    assert REQUEST.is_valid(body) == is_parsed(body)
    assert WITH_DEFAULT.is_valid(body) == is_parsed(body, default_model="d")


FOREIGN = [
    None, True, False, -1, 0, 1, 2, 2.0, 256, "", "END", "NONE", "START", "left", "right", "Right", "float32", "float", "float16",
    "base64", "little", "native", "big", "text", "image", ["text"], ["float"], ["float", "int8"], [], {}, "query",
]  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_another_server_is_taken_where_the_schema_allows_it(name):
    for value in FOREIGN:
        body = {"input": "a", "model": "m", name: value}
        assert REQUEST.is_valid(body) == is_parsed(body), (name, value)


@pytest.mark.parametrize("full", [["a"] * 2048, [[1]] * 2048, [1] * 8192], ids=["texts", "arrays", "ids"])
def test_as_much_as_may_come_is_allowed(full):
    """One more is among the bad requests."""
    assert is_parsed({"input": full, "model": "m"})
    assert REQUEST.is_valid({"input": full, "model": "m"})


@pytest.mark.parametrize(("name", "row"), [(name, row) for name, row in BAD_REQUESTS.items() if "json" in row[0]])
def test_what_is_refused_for_its_shape_is_not_allowed(name, row):
    bounds = RequestBounds(max_dimensions=8)
    is_known = name == "unknown model"  # which names there are, a schema does not say
    assert checked(bounded(SCHEMAS["EmbeddingsBody"], bounds)).is_valid(row[0]["json"]) == is_known


numbers = st.sampled_from([None, 0, 1, 5, 5.0, 5.5, 10**12, 10**12 + 1, 2**70, True, "5"])
names = st.sampled_from(["", "n", "x" * 64, "x" * 65, "x" * 200, "x" * 201, "x" * 512, "x" * 513, 5, None])
policies = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "models": st.lists(names, max_size=2) | st.sampled_from([["m"] * 100, ["m"] * 101, "m", None, ["m\t"]]),
        **{name: numbers for name, kind in KeyPolicy.__annotations__.items() if "int" in str(kind) and "dict" not in str(kind)},
        "budget_period": st.sampled_from(["day", "month", "year", "", None]),
        "is_admin": st.sampled_from([True, False, None, 1]),
        "metadata": st.dictionaries(names.filter(lambda each: isinstance(each, str)), names, max_size=2)
        | st.sampled_from([{str(number): "" for number in range(16)}, {str(number): "" for number in range(17)}, None, []]),
        "expires_at": st.sampled_from([None, "2099-01-01T00:00:00Z", 5]),
        "rpm": st.just(5),
    },
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(policies)
@example({"requests_burst": 5})
@example({"requests_burst": 5, "requests_per_minute": None})
@example({"requests_burst": None})
@example({"name": "\x00"})
@example({"name": "a\nb"})
def test_a_policy_is_taken_where_the_schema_allows_it_and_nowhere_else(table):
    try:
        policy_of(table)
    except ValueError:
        assert not POLICY.is_valid(table)
    else:
        assert POLICY.is_valid(table)


@pytest.mark.parametrize("text", ["2026-13-01T00:00:00Z", "soon", "2099-01-01T00:00:00", "a\u200bb"])
def test_what_a_schema_cannot_say_is_refused_all_the_same(text):
    """A date that there is not, and characters that nobody sees."""
    with pytest.raises(ValueError, match=r"expires_at|printable"):
        policy_of({"expires_at": text} if "20" in text or text == "soon" else {"name": text})


@pytest.mark.parametrize(
    "grace", ["0s", "24h", "36500d", "999999999s", "", "24", " 24h", "24h ", "24h\n", "1y", "1234567890s", 5, None]
)
def test_a_grace_is_taken_where_the_schema_allows_it(grace):
    try:
        grace_of({"grace": grace})
    except ClientError:
        assert not ROTATION.is_valid({"grace": grace})
    else:
        assert ROTATION.is_valid({"grace": grace})


@pytest.mark.parametrize("parameter", [LIMIT, OFFSET, AFTER, KEY_ID, BY, SINCE], ids=lambda each: each.name)
@pytest.mark.parametrize("value", [-1, 0, 1, 100, 1000, 1001, 10**6, 10**6 + 1, "day", "hour", "year", "", "30d", "30", "30d "])
def test_a_parameter_is_read_where_the_schema_allows_it(parameter, value):
    described = parameter.describe()
    assert described["in"] == "query"
    try:
        parameter.read({parameter.name: str(value)})
    except ClientError:
        assert not checked(described["schema"]).is_valid(value)
    else:
        assert checked(described["schema"]).is_valid(int(value) if isinstance(parameter, type(LIMIT)) else str(value))
