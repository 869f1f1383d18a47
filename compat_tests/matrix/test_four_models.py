"""One file, four models of four origins: every client is served each of them, and an upstream that dies is its callers' alone."""

from typing import Any

import numpy as np
import pytest

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.matrix.cells import CLIENTS, Client
from compat_tests.matrix.conftest import ProgramOf, ask_for_infinity
from compat_tests.matrix.four import MINILM, MULTILINGUAL, NAMES, ON_INFINITY, ON_OLLAMA, TEXTS, Four
from compat_tests.matrix.load import Load, load_on
from compat_tests.matrix.ollama import vectors
from compat_tests.matrix.program import Refusal
from compat_tests.truth import Truth, assert_close
from compat_tests.waiting import until

LEAST_COSINE = 0.999  # infinity computes in float16
ERROR_KEYS = ["message", "type", "param", "code"]
CODES = {502: "upstream_error", 503: "upstream_unavailable"}
NUM_SERVED = 10  # answers of each model that show it works
UNDER_WAY_SECONDS, NOTICED_SECONDS, BACK_SECONDS = 60, 10, 40  # a breaker stays open for 30 seconds at most


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_every_client_gets_the_vectors_of_each_of_the_four(
    client: Client, name: str, program_of: ProgramOf, four: Four, truth: Truth
) -> None:
    if name == ON_INFINITY:
        ask_for_infinity()
    answer = program_of(client).ask(base_url=four.gateway.base_url, key=ENVIRONMENT_KEY, model=name, input=TEXTS)
    assert not isinstance(answer, Refusal), answer
    rows = np.array(answer)
    expected = expected_of(name, four, truth)
    if name == ON_INFINITY:
        assert rows.shape == expected.shape
        assert (rows * expected).sum(axis=1).min() >= LEAST_COSINE
        assert_close(np.linalg.norm(rows, axis=1), np.ones(len(TEXTS)))
    else:
        assert_close(rows, expected)


def expected_of(name: str, four: Four, truth: Truth) -> Any:
    if name == ON_OLLAMA:
        return vectors(TEXTS)
    return four.multilingual if name == MULTILINGUAL else truth.vectors(TEXTS)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("killed", [ON_INFINITY, ON_OLLAMA])
def test_openai_callers_of_an_upstream_that_is_killed_under_load_are_refused_and_no_others(killed: str, four: Four) -> None:
    if killed == ON_INFINITY:
        ask_for_infinity()
    names = [MINILM, MULTILINGUAL, *four.upstreams]
    with load_on(four.gateway.base_url, names) as load:
        until_served_more(load, names)
        four.upstreams[killed].kill()
        until(lambda: is_left_alone(load, killed), seconds=NOTICED_SECONDS, what="the breaker")
        assert four.gateway.status_of("/readyz") == 200
        until_served_more(load, [name for name in names if name != killed])
        num_before = load.num_served(killed)
        four.upstreams[killed].start()
        four.upstreams[killed].wait_until_ready()
        until(lambda: load.num_served(killed) >= num_before + NUM_SERVED, seconds=BACK_SECONDS, what=f"{killed} served again")
    for name in names:
        if name != killed:
            assert {told.status for told in load.told[name]} == {200}, name
    assert_refused_in_the_contracts_shape(load, killed)


def until_served_more(load: Load, names: list[str]) -> None:
    before = {name: load.num_served(name) for name in names}
    until(
        lambda: all(load.num_served(name) >= before[name] + NUM_SERVED for name in names),
        seconds=UNDER_WAY_SECONDS,
        what=f"{NUM_SERVED} more answers of each of {names}",
    )


def is_left_alone(load: Load, name: str) -> bool:
    return any("is cooling down" in told.message for told in list(load.told[name]))


def assert_refused_in_the_contracts_shape(load: Load, name: str) -> None:
    """At once, for nothing waits for a server that is not there; the last callers were served again."""
    refusals = [told for told in load.told[name] if told.status != 200]
    assert load.told[name][-1].status == 200
    for told in refusals:
        assert list(told.error) == ["error"]
        assert list(told.error["error"]) == ERROR_KEYS
        assert (told.error["error"]["type"], told.error["error"]["code"]) == ("server_error", CODES[told.status])
        assert name in told.message
        assert told.seconds < NOTICED_SECONDS
        if told.status == 503:
            assert 1 <= int(told.retry_after or 0) <= 59
