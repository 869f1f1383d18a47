"""Rerank by the vendors' own clients, unmodified: order and scores are those of sentence-transformers' CrossEncoder."""

import json
import os
import subprocess
from pathlib import Path

import cohere
import pytest
from cohere.errors import BadRequestError, NotFoundError, UnauthorizedError

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.curl import Curl
from compat_tests.matrix.program import LITELLM_PYTHON, QUIET
from compat_tests.process import Gateway
from compat_tests.scorer import RERANKER, Scorer, assert_ranked

QUERY = "how do I get back into my account?"
DOCUMENTS = [
    "I forgot my password and cannot log in.",
    "The parcel arrived two days late.",
    "How can I reset my login credentials?",
    "What a beautiful sunset over the sea!",
    "Größe, 你好 and 🙂",
]
LITE_LLM = Path(__file__).parent / "matrix/clients/lite_llm_rerank.py"
PROVIDERS = ["cohere", "jina_ai", "hosted_vllm", "infinity"]


@pytest.fixture(params=["", "/v1"], ids=["origin", "base with /v1"])
def base_url(request: pytest.FixtureRequest, reranking: Gateway) -> str:
    return f"{reranking.origin}{request.param}"


def test_coheres_second_client(base_url: str, scorer: Scorer) -> None:
    with cohere.ClientV2(api_key=ENVIRONMENT_KEY, base_url=base_url) as client:
        reply = client.rerank(model=RERANKER, query=QUERY, documents=DOCUMENTS)
        best = client.rerank(model=RERANKER, query=QUERY, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=4096)
    assert_ranked([(each.index, each.relevance_score) for each in reply.results], scorer.scores(QUERY, DOCUMENTS))
    assert reply.meta.tokens.input_tokens == scorer.num_tokens(QUERY, DOCUMENTS)
    assert (reply.meta.api_version.version, reply.meta.billed_units.search_units) == ("2", 1)
    assert best.results == reply.results[:2]


def test_coheres_first_client(base_url: str, scorer: Scorer) -> None:
    documents = [{"text": text, "title": f"page {number}"} for number, text in enumerate(DOCUMENTS)]
    with cohere.Client(api_key=ENVIRONMENT_KEY, base_url=base_url) as client:
        reply = client.rerank(model=RERANKER, query=QUERY, documents=documents, top_n=3, return_documents=True)
        fields = client.rerank(model=RERANKER, query=QUERY, documents=documents, rank_fields=["title", "text"])
    assert_ranked([(each.index, each.relevance_score) for each in reply.results], scorer.scores(QUERY, DOCUMENTS), top_n=3)
    assert [each.document.model_dump() for each in reply.results] == [documents[each.index] for each in reply.results]
    joined = [f"{each['title']}\n{each['text']}" for each in documents]
    assert_ranked([(each.index, each.relevance_score) for each in fields.results], scorer.scores(QUERY, joined))


def test_coheres_clients_raise_their_own_errors(reranking: Gateway) -> None:
    with cohere.ClientV2(api_key=ENVIRONMENT_KEY, base_url=reranking.origin) as client:
        with pytest.raises(NotFoundError):
            client.rerank(model="none", query=QUERY, documents=DOCUMENTS)
        with pytest.raises(BadRequestError, match="documents"):
            client.rerank(model=RERANKER, query=QUERY, documents=[])
    with cohere.ClientV2(api_key="wrong", base_url=reranking.origin) as client, pytest.raises(UnauthorizedError):
        client.rerank(model=RERANKER, query=QUERY, documents=DOCUMENTS)


def test_lite_llm(reranking: Gateway, scorer: Scorer) -> None:
    """Each of its providers, with the origin and with /v1 as base. `infinity/` cannot read a document that is an object."""
    calls = [
        {
            "model": f"{provider}/{RERANKER}", "api_base": base, "api_key": ENVIRONMENT_KEY, "query": QUERY, "documents": DOCUMENTS,
            "return_documents": provider != "infinity",
        }
        for provider in PROVIDERS
        for base in (reranking.origin, reranking.base_url)
    ]  # fmt: skip
    done = subprocess.run(
        [LITELLM_PYTHON, LITE_LLM],
        input=json.dumps(calls),
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    replies = json.loads(done.stdout)
    assert len(replies) == len(calls)
    for call, reply in zip(calls, replies, strict=True):
        assert_ranked([(each["index"], each["relevance_score"]) for each in reply["results"]], scorer.scores(QUERY, DOCUMENTS))
        if call["return_documents"]:
            assert [each["document"]["text"] for each in reply["results"]] == [
                DOCUMENTS[each["index"]] for each in reply["results"]
            ]


def test_raw_scores_and_teis_form_by_curl(reranking: Gateway, scorer: Scorer) -> None:
    curl = Curl(reranking.origin, ENVIRONMENT_KEY)
    reply = curl.post({"query": QUERY, "documents": DOCUMENTS, "raw_scores": True}, path="/v1/rerank")
    results = [(each["index"], each["relevance_score"]) for each in reply.json()["results"]]
    assert_ranked(results, scorer.logits(QUERY, DOCUMENTS))
    reply = curl.post({"query": QUERY, "texts": DOCUMENTS}, path="/rerank")
    assert_ranked([(each["index"], each["score"]) for each in reply.json()], scorer.scores(QUERY, DOCUMENTS))
