"""One gateway for the session, the truth beside it, and the clients that speak with it."""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import AsyncOpenAI, OpenAI

from compat_tests.curl import Curl
from compat_tests.process import FLOAT32_ROW, Gateway
from compat_tests.ranks import write_tiktoken_cache
from compat_tests.scorer import RERANKER, Scorer
from compat_tests.texts import MARKER
from compat_tests.truth import Truth

ENVIRONMENT_KEY = f"key-of-the-environment-{MARKER}"  # the marker: a key must not stand in the log either
MEANT_FOR_OTHERS = ("OPENAI_", "LANGCHAIN_", "LANGSMITH_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No settings of this machine's user reach the clients; tiktoken finds its ranks without a network."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith(MEANT_FOR_OTHERS)]:
            patch.delenv(name)
        cache = tmp_path_factory.mktemp("tiktoken")
        write_tiktoken_cache(cache)
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        yield
    assert "gateway" not in sys.modules  # real clients only


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Truth]:
    reference = Truth(tmp_path_factory.mktemp("reference"))
    yield reference
    reference.close()


@contextmanager
def running(gateway: Gateway) -> Iterator[Gateway]:
    """A gateway from ready to killed; whoever wants a clean end stops it inside."""
    gateway.start()
    try:
        gateway.wait_until_ready()
        yield gateway
    finally:
        gateway.kill()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, key: str, data: Gateway) -> Iterator[Gateway]:
    """The gateway that most tests share. It must end as it should, and have kept to itself what it was sent."""
    with running(data) as gateway:
        yield gateway
        gateway.stop()
    assert MARKER not in gateway.log
    assert key not in gateway.log
    assert "internal_error" not in gateway.log
    assert "Traceback" not in gateway.log


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    """The shared gateway before it is started: its folder and its environment."""
    return Gateway(tmp_path_factory.mktemp("gateway"), GATEWAY_API_KEYS=ENVIRONMENT_KEY)


@pytest.fixture(scope="session")
def key(data: Gateway) -> str:
    """A key of the store, made by the command before the server starts."""
    return data.create_key("compat tests")[1]


@pytest.fixture
def own_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Makes a gateway that a test has for itself, with settings of its own, not yet started; it is gone after the test."""
    made: list[Gateway] = []

    def make(**settings: str) -> Gateway:
        folder = tmp_path / f"gateway-{len(made)}"
        folder.mkdir()
        made.append(Gateway(folder, GATEWAY_API_KEYS=ENVIRONMENT_KEY, **settings))
        return made[-1]

    yield make
    for gateway in made:
        gateway.kill()


@pytest.fixture(scope="session")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    scorer = Scorer(tmp_path_factory.mktemp("scorer"))
    yield scorer
    scorer.close()


@pytest.fixture(scope="session")
def reranking(tmp_path_factory: pytest.TempPathFactory, scorer: Scorer) -> Iterator[Gateway]:
    """A gateway with a small reranker beside the embedder. It keeps to itself what it was sent."""
    reranker = {"name": RERANKER, "source": str(scorer.model), "precision": "float32"}
    rows = json.dumps([FLOAT32_ROW, reranker])
    with running(Gateway(tmp_path_factory.mktemp("reranking"), GATEWAY_API_KEYS=ENVIRONMENT_KEY, GATEWAY__MODELS=rows)) as gateway:
        yield gateway
        gateway.stop()
    assert ENVIRONMENT_KEY not in gateway.log
    assert "internal_error" not in gateway.log


@pytest.fixture(scope="session")
def client(gateway: Gateway, key: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.base_url, api_key=key) as client:
        yield client


@pytest.fixture
async def async_client(gateway: Gateway, key: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key=key) as client:
        yield client


@pytest.fixture(scope="session")
def curl(gateway: Gateway, key: str) -> Curl:
    return Curl(gateway.origin, key)
