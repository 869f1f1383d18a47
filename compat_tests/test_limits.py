"""A gateway with limits for every key: clients see a 429, obey its Retry-After and succeed, with nothing set on their side."""

from collections.abc import AsyncIterator, Callable, Iterator

import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from openai import OpenAI
from pydantic import SecretStr

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.process import Gateway
from compat_tests.texts import MODEL, prose
from compat_tests.waiting import until

TOKENS_BURST = 50


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One request a second, one at a time; tokens in plenty, but few in one request."""
    settings = {
        "GATEWAY_API_KEYS": ENVIRONMENT_KEY,
        "GATEWAY__LIMITS__REQUESTS_PER_MINUTE": "60",
        "GATEWAY__LIMITS__REQUESTS_BURST": "1",
        "GATEWAY__LIMITS__TOKENS_PER_MINUTE": "6000",
        "GATEWAY__LIMITS__TOKENS_BURST": str(TOKENS_BURST),
    }
    with running(Gateway(tmp_path_factory.mktemp("limited"), **settings)) as gateway:
        yield gateway
        gateway.stop()
    assert ENVIRONMENT_KEY not in gateway.log


@pytest.fixture
async def client(limited: Gateway) -> AsyncIterator[OpenAI]:
    with OpenAI(base_url=limited.base_url, api_key=ENVIRONMENT_KEY) as client:
        yield client


def num_refused(gateway: Gateway) -> float:
    return gateway.metric("gateway_limited_total", having='limit="requests"')


def test_openai_is_told_to_wait_waits_and_succeeds(client: OpenAI, limited: Gateway) -> None:
    before = num_refused(limited)
    for _ in range(3):
        assert client.embeddings.create(model=MODEL, input="a").data[0].embedding
    assert num_refused(limited) - before >= 2


def test_openai_without_retries_raises_what_was_reached_and_when_it_will_do(client: OpenAI) -> None:
    impatient = client.with_options(max_retries=0)

    def hurry() -> None:
        for _ in range(3):
            impatient.embeddings.create(model=MODEL, input="a")

    with pytest.raises(openai.RateLimitError) as caught:
        hurry()
    raised, headers = caught.value, caught.value.response.headers
    assert (raised.type, raised.code, raised.param) == ("requests", "rate_limit_exceeded", None)
    assert "Please try again in" in raised.message
    assert headers["retry-after"] == "1"
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("60", "0")
    assert headers["x-ratelimit-limit-tokens"] == "6000"


def test_openai_does_not_wait_for_what_can_never_fit(client: OpenAI, limited: Gateway) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=MODEL, input=["many words of one text"] * TOKENS_BURST)
    assert caught.value.code == "request_exceeds_limit"
    assert f"at most {TOKENS_BURST}" in caught.value.message


def test_langchain_is_told_to_wait_waits_and_succeeds(limited: Gateway) -> None:
    before = num_refused(limited)
    embeddings = OpenAIEmbeddings(base_url=limited.base_url, api_key=SecretStr(ENVIRONMENT_KEY), model=MODEL)
    try:
        assert all(embeddings.embed_query(text) for text in ("a", "b", "c"))
    finally:
        embeddings.client._client.close()  # noqa: SLF001 - it has no way to close what it opened
    assert num_refused(limited) - before >= 2


def test_langchain_s_thousand_chunks_fit_a_key_of_a_million_tokens_a_minute(own_gateway: Callable[..., Gateway]) -> None:
    """Of 200 tokens each, as its splitter cuts them: one request, which is more than a sixth of the minute's limit."""
    chunks = [prose(155, seed) for seed in range(1000)]
    with running(own_gateway()) as gateway:
        _, key = gateway.create_key("langchain", "--rpm", "600", "--tpm", "1000000")
        until(lambda: gateway.status_of("/v1/models", key=key) == 200, seconds=10, what="the key just made")
        embeddings = OpenAIEmbeddings(base_url=gateway.base_url, api_key=SecretStr(key), model=MODEL, max_retries=0)
        try:
            assert len(embeddings.embed_documents(chunks)) == len(chunks)
        finally:
            embeddings.client._client.close()  # noqa: SLF001 - it has no way to close what it opened
        assert gateway.metric("gateway_http_requests_total", having='route="/v1/embeddings"') == 1
        assert gateway.metric("gateway_key_tokens_total") > 1_000_000 // 6
        with OpenAI(base_url=gateway.base_url, api_key=key) as client:
            headers = client.embeddings.with_raw_response.create(model=MODEL, input="a").headers
        assert (headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-burst-tokens"]) == ("1000000", "300000")
        assert int(headers["x-ratelimit-remaining-tokens"]) >= 0
        gateway.stop()
