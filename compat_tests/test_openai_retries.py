"""openai-python: what it tries again. A stand-in gives the answers that call for it, and then passes on to the gateway."""

import openai
import pytest
from openai import OpenAI

from compat_tests.process import Gateway
from compat_tests.standin import OUT_OF_QUOTA, OVERLOADED, RATE_LIMITED, Canned, stand_in
from compat_tests.texts import MODEL
from compat_tests.truth import Truth, assert_close

TEMPORARY = {
    "429": (RATE_LIMITED, openai.RateLimitError),
    "503": (OVERLOADED, openai.InternalServerError),
}
temporary = pytest.mark.parametrize(("canned", "error"), TEMPORARY.values(), ids=TEMPORARY.keys())


@temporary
def test_openai_tries_again_and_succeeds(
    client: OpenAI, gateway: Gateway, truth: Truth, canned: Canned, error: type[openai.APIStatusError]
) -> None:
    with stand_in(gateway.port, canned) as server:
        patient = client.with_options(base_url=server.base_url)
        answer = patient.embeddings.create(model=MODEL, input="a")
        assert_close(answer.data[0].embedding, truth.vector("a"))
        assert server.num_requests == 2


@temporary
def test_openai_without_retries_raises(
    client: OpenAI, gateway: Gateway, canned: Canned, error: type[openai.APIStatusError]
) -> None:
    with stand_in(gateway.port, canned) as server:
        impatient = client.with_options(base_url=server.base_url, max_retries=0)
        with pytest.raises(error) as caught:
            impatient.embeddings.create(model=MODEL, input="a")
        assert server.num_requests == 1
    raised = caught.value
    assert (raised.status_code, raised.code, raised.param, raised.type) == (canned.status, canned.code, None, canned.error_type)
    assert canned.message in raised.message
    assert raised.response.headers["Retry-After"] == "1"


def test_openai_does_not_try_again_when_told_that_it_is_useless(client: OpenAI, gateway: Gateway) -> None:
    with stand_in(gateway.port, OUT_OF_QUOTA) as server:
        with pytest.raises(openai.RateLimitError) as caught:
            client.with_options(base_url=server.base_url).embeddings.create(model=MODEL, input="a")
        assert caught.value.code == "insufficient_quota"
        assert server.num_requests == 1


def test_openai_does_not_try_again_after_the_gateway_said_no(client: OpenAI, gateway: Gateway) -> None:
    """The gateway's own refusals, seen through the stand-in that counts."""
    with stand_in(gateway.port) as server:
        through = client.with_options(base_url=server.base_url)
        with pytest.raises(openai.BadRequestError):
            through.embeddings.create(model=MODEL, input="")
        with pytest.raises(openai.NotFoundError):
            through.embeddings.create(model="unknown", input="a")
        assert server.num_requests == 2
