"""What may be said of a key, and which models that opens."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.keys.key import MAX_NUMBER, Allowance, Caller
from gateway.access.keys.policy import FIELDS, InvalidPolicy, KeyPolicy, as_table, description_of, policy_of
from gateway.access.schema import keys_table
from gateway.api.openapi.json_schema import components
from gateway.cli.keys.create import create
from gateway.cli.keys.policy_options import NUMBERS, number
from gateway.errors import OperatorError

SCHEMAS = components([KeyPolicy], [])

WRONG = [
    ({"requests_per_minute": 0}, "requests_per_minute"),
    ({"requests_per_minute": -1}, "requests_per_minute"),
    ({"tokens_per_minute": 10**12 + 1}, "tokens_per_minute"),
    ({"tokens_per_minute": 10**30}, "tokens_per_minute"),
    ({"token_budget": "5"}, "token_budget"),
    ({"token_budget": True}, "token_budget"),
    ({"token_budget": 1.5}, "token_budget"),
    ({"budget_period": "week"}, "budget_period"),
    ({"budget_period": None}, "budget_period"),
    ({"models": []}, "models"),
    ({"models": [""]}, "models"),
    ({"models": "all-*"}, "models"),
    ({"models": ["m"] * 101}, "models"),
    ({"models": ["m\n"]}, ""),
    ({"name": "n" * 201}, "name"),
    ({"name": "\x1b[31mred"}, ""),
    ({"expires_at": "tomorrow"}, "expires_at"),
    ({"expires_at": "2026-11-25T00:00:00"}, "expires_at"),
    ({"is_admin": "yes"}, "is_admin"),
    ({"metadata": {"a": 1}}, "metadata"),
    ({"metadata": {"a" * 65: ""}}, "metadata"),
    ({"metadata": {"a": "b" * 513}}, "metadata"),
    ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    ({"requests_burst": 5}, "requests_burst"),
    ({"tokens_burst": 5, "requests_per_minute": 5}, "tokens_burst"),
    ({"rpm": 5}, "rpm"),
]


@pytest.mark.parametrize(("table", "field"), WRONG, ids=repr)
def test_terms_that_cannot_be_are_refused_by_their_name(table, field):
    with pytest.raises(InvalidPolicy) as caught:
        policy_of(table)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: " if field else "names, models and metadata")
    assert "\n" not in str(caught.value)


def test_no_terms_are_those_of_a_key_without_limits():
    assert policy_of({}) == KeyPolicy()
    assert KeyPolicy().allowance == Allowance()
    assert set(as_table(KeyPolicy())) == set(FIELDS)


def test_null_takes_a_limit_away():
    before = policy_of({"requests_per_minute": 5, "token_budget": 7})
    assert policy_of({"requests_per_minute": None}, before) == KeyPolicy(token_budget=7)


def test_the_allowance_is_the_numbers():
    numbers = {"requests_per_minute": 1, "requests_burst": 2, "tokens_per_minute": 3, "tokens_burst": 4}
    policy = policy_of({**numbers, "max_concurrent_requests": 5, "token_budget": 6, "budget_period": "day"})
    assert policy.allowance == Allowance(1, 2, 3, 4, 5, 6, "day")


@given(st.dictionaries(st.sampled_from(FIELDS), st.none() | st.integers() | st.text() | st.lists(st.text()) | st.booleans()))
def test_any_terms_are_taken_or_refused_and_what_is_taken_can_be_told(table):
    with suppress(InvalidPolicy):
        policy = policy_of(table)
        assert policy_of(as_table(policy)) == policy


@pytest.mark.parametrize(
    ("globs", "names", "expected"),
    [
        (("*",), ["anything"], True),
        (("all-*",), ["all-MiniLM-L6-v2"], True),
        (("all-*",), ["ALL-MiniLM-L6-v2"], False),
        (("all-*", "bge-*"), ["bge-m3"], True),
        (("bge-*",), ["all-MiniLM-L6-v2", "text-embedding-3-small"], False),
        (("text-embedding-3-small",), ["all-MiniLM-L6-v2", "text-embedding-3-small"], True),
        (("org/*",), ["org/m"], True),
        (("m?",), ["m"], False),
        (("[",), ["["], True),
        ((), ["m"], False),
    ],
)
def test_globs_are_over_every_name_of_a_model(globs, names, expected):
    assert Caller("id", models=globs).may_use(names) is expected


def test_a_limit_is_declared_once_for_the_store_the_command_line_and_the_admin_api():
    fields = list(Allowance.__struct_fields__)
    assert [column.name for column in keys_table.columns if column.name in fields] == fields
    assert {*NUMBERS.values(), "token_budget", "budget_period"} == set(fields)
    shown = {name: schema["description"] for name, schema in SCHEMAS["KeyPolicy"]["properties"].items()}
    assert shown == {name: description_of(name) for name in KeyPolicy.__struct_fields__}
    options = {parameter.name: parameter.help for parameter in create.params}
    for option, term in [
        *NUMBERS.items(),
        ("budget", "token_budget"),
        ("admin", "is_admin"),
        ("name", "name"),
        ("models", "models"),
    ]:
        assert options[option].startswith(shown[term])


@pytest.mark.parametrize("value", [0, MAX_NUMBER + 1])
@pytest.mark.parametrize("term", NUMBERS.values())
def test_a_number_has_the_same_bounds_everywhere(term, value):
    with pytest.raises(InvalidPolicy, match=term):
        policy_of({term: value})
    with pytest.raises(OperatorError, match="from 1 to 1000000000000"):
        number("--option", str(value))
    bounds = SCHEMAS["KeyPolicy"]["properties"][term]
    assert (bounds["minimum"], bounds["maximum"], number("--option", str(MAX_NUMBER))) == (1, MAX_NUMBER, MAX_NUMBER)
