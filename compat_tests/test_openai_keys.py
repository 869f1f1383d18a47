"""openai-python: what a client sees of a key's scope, its expiry, its rotation and its budget."""

import json
from collections.abc import Callable, Iterator

import openai
import pytest
from openai import OpenAI

from compat_tests.process import Gateway
from compat_tests.texts import MODEL
from compat_tests.waiting import until

SEEN_SECONDS = 2  # the contract's
FLUSH_SECONDS = 5


@pytest.fixture
def holder(gateway: Gateway) -> Iterator[Callable[..., tuple[str, OpenAI]]]:
    """Makes a key with the options of `gateway keys create`, and a client that has it and does not retry."""
    clients: list[OpenAI] = []

    def make(*options: str) -> tuple[str, OpenAI]:
        made = json.loads(gateway.run("keys", "create", "--json", *options))
        clients.append(OpenAI(base_url=gateway.base_url, api_key=made["key"], max_retries=0))
        return made["id"], clients[-1]

    yield make
    for client in clients:
        client.close()


def failure(client: OpenAI, model: str = MODEL) -> openai.APIStatusError | None:
    """None is a reply."""
    try:
        assert client.embeddings.create(model=model, input="one two three").data
    except openai.APIStatusError as error:
        return error
    return None


def works(client: OpenAI) -> Callable[[], bool]:
    return lambda: failure(client) is None


def fails(client: OpenAI, kind: type[openai.APIStatusError]) -> Callable[[], bool]:
    return lambda: isinstance(failure(client), kind)


def test_openai_raises_not_found_for_a_model_the_key_may_not_use(holder: Callable[..., tuple[str, OpenAI]]) -> None:
    _, client = holder("--models", "bge-*")
    until(lambda: not isinstance(failure(client), openai.AuthenticationError), seconds=SEEN_SECONDS, what="a new key works")
    hidden, unknown = failure(client), failure(client, "x" * len(MODEL))
    assert isinstance(hidden, openai.NotFoundError)
    assert isinstance(unknown, openai.NotFoundError)
    assert (hidden.code, hidden.param, hidden.type) == ("model_not_found", "model", "invalid_request_error")
    assert hidden.message == unknown.message.replace("x" * len(MODEL), MODEL)
    assert client.models.list().data == []
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(MODEL)


def test_openai_is_shown_the_models_of_its_key(holder: Callable[..., tuple[str, OpenAI]]) -> None:
    _, client = holder("--models", "nothing,all-Mini*")
    until(works(client), seconds=SEEN_SECONDS, what="a new key works")
    assert MODEL in [model.id for model in client.models.list().data]


def test_openai_raises_authentication_error_once_a_key_has_expired(
    holder: Callable[..., tuple[str, OpenAI]], gateway: Gateway
) -> None:
    public_id, client = holder("--expires", "1h")
    until(works(client), seconds=SEEN_SECONDS, what="a new key works")
    gateway.run("keys", "limit", public_id, "--expires", "1s")
    until(fails(client, openai.AuthenticationError), seconds=1 + SEEN_SECONDS, what="an expired key stops working")
    error = failure(client)
    assert error is not None
    assert (error.code, error.type) == ("invalid_api_key", "invalid_request_error")


def test_openai_goes_on_with_the_old_secret_until_the_grace_is_over(
    holder: Callable[..., tuple[str, OpenAI]], gateway: Gateway
) -> None:
    public_id, client = holder()
    until(works(client), seconds=SEEN_SECONDS, what="a new key works")
    rotated = json.loads(gateway.run("keys", "rotate", public_id, "--grace", "1h", "--json"))
    with client.with_options(api_key=rotated["key"]) as new:
        until(works(new), seconds=SEEN_SECONDS, what="the new secret works")
        assert failure(client) is None
        json.loads(gateway.run("keys", "rotate", public_id, "--grace", "0s", "--json"))
        until(fails(client, openai.AuthenticationError), seconds=SEEN_SECONDS, what="the first secret stops working")
        until(fails(new, openai.AuthenticationError), seconds=SEEN_SECONDS, what="the second secret stops working")


def test_openai_raises_rate_limit_error_and_does_not_retry_once_the_budget_is_spent(
    holder: Callable[..., tuple[str, OpenAI]], gateway: Gateway
) -> None:
    public_id, client = holder("--budget", "5/month")
    until(works(client), seconds=SEEN_SECONDS, what="a new key works")
    before = gateway.metric("gateway_requests_total", having='outcome="insufficient_quota"')
    patient = client.with_options(max_retries=5)  # not closed here: the connections are the client's
    with pytest.raises(openai.RateLimitError) as caught:
        patient.embeddings.create(model=MODEL, input="a")
    error = caught.value
    assert (error.status_code, error.code, error.type) == (429, "insufficient_quota", "insufficient_quota")
    assert "You exceeded your current quota" in error.message
    assert error.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in error.response.headers
    assert gateway.metric("gateway_requests_total", having='outcome="insufficient_quota"') == before + 1

    def used() -> int:
        rows = json.loads(gateway.run("keys", "usage", public_id, "--json"))
        return sum(row["tokens"] for row in rows)

    until(lambda: used() == 5, seconds=2 * FLUSH_SECONDS, what="usage is written")
    gateway.run("keys", "limit", public_id, "--budget", "none")
    until(works(client), seconds=SEEN_SECONDS, what="a key without its budget works again")
