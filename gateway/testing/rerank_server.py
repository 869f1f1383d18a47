"""Stand-ins for rerankers on other servers, by what these were seen or are documented to answer.

TEI, llama.cpp, infinity    recorded of 1.9.3, build 11434 and 0.0.78
vLLM                        vllm/entrypoints/pooling/score/protocol.py: RerankRequest, RerankResponse
Cohere                      docs.cohere.com/reference/rerank; a field that it does not know: HKUDS/LightRAG#1813
Jina                        api.jina.ai/openapi.json: RankAPIInput, RankingOutput
Voyage                      docs.voyageai.com/reference/reranker-api
NVIDIA NIM                  docs.nvidia.com/nim/nemo-retriever/text-reranking/latest: using-reranking, reference
Mixedbread                  mixedbread.com/api-reference/endpoints/reranking
DashScope                   www.alibabacloud.com/help/en/model-studio/rerank
another gateway             docs/api.md

Only the first three were recorded. Of Cohere, Voyage, NIM and DashScope no test may rely on the words in which they refuse too many
documents or a long query here: these are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gateway.testing.fakes import hashed
from gateway.testing.upstream_server import TEI_INFO, Said, tei_error

RERANKER = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}


@dataclass
class RerankWeights:
    """The model of a stand-in. A logit grows with the share of the query that a document repeats; every word of both counts.

    `limit` words of a pair are read, the longer of the two being shortened first. The other documents of a request change a score
    if it `is_listwise`. `noise` is added anew each time, `offset` always.
    """

    seed: str = "a"
    limit: int | None = None
    noise: float = 0.0
    offset: float = 0.0
    scale: float = 1.0
    is_listwise: bool = False
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def logit(self, query: str, document: str, num_others: int = 0) -> float:
        query_words, words = self.read(query.split(), document.split())
        shared = sum(word.casefold() in {each.casefold() for each in words} for word in query_words) / max(1, len(query_words))
        every = np.mean([hashed(f"{self.seed} {word}", 8)[0] for word in (*query_words, *words)] or [0.0])
        company = 2.0 * num_others if self.is_listwise else 0.0
        raw = self.scale * (12 * shared - 6 + 3 * float(every) + company) + self.offset
        return float(np.float32(raw + self.noise * self.random.standard_normal()))

    def read(self, query: list[str], document: list[str]) -> tuple[list[str], list[str]]:
        """Truncates as `longest_first` of tokenizers does."""
        while self.limit is not None and len(query) + len(document) > self.limit:
            excess = len(query) + len(document) - self.limit
            longer, shorter = max(query, document, key=len), min(query, document, key=len)
            kept = max(len(longer) - excess, min(len(longer) - 1, len(shorter)))
            query, document = (query[:kept], document) if query is longer else (query, document[:kept])
        return query, document

    def logits(self, query: str, documents: list[str]) -> list[float]:
        return [self.logit(query, each, len(documents) - 1) for each in documents]


def sigmoid(logit: float) -> float:
    """As a server computes it, in float32."""
    return float(np.float32(1) / (np.float32(1) + np.exp(-np.float32(logit))))


def pair_tokens(query: str, documents: list[str]) -> int:
    return sum(len(query.split()) + len(each.split()) + 3 for each in documents)


Fault = Callable[[dict[str, Any]], Said | None]


@dataclass
class RerankServer:
    """One kind of server. `score` makes its score of a logit and a request, `reply` its reply of (index, score), best first.

    `check` refuses a request. A pair of more than `reads` words is answered by `too_long`, or cut in silence if that is None.
    """

    name: str
    reply: Callable[[dict[str, Any], list[tuple[int, float]], int], Said]
    score: Callable[[dict[str, Any], float], float]
    path: str = "/rerank"
    documents: str = "documents"
    check: Fault = lambda _: None
    reads: int = 512
    too_long: Said | None = None
    cuts: Callable[[dict[str, Any]], bool] = lambda body: body.get("truncate") is True
    get: Callable[[str], Said] = lambda _: Said(404)
    headers: dict[str, str] = field(default_factory=dict)

    def answering(self, weights: RerankWeights | None = None, *, key: str | None = None, wrong_key: Said | None = None):
        """A function for `Standin`."""
        model = weights or RerankWeights()

        def answer(request):
            if key is not None and request.headers.get("authorization") != f"Bearer {key}":
                return wrong_key or Said(401)
            if request.method == "GET":
                return self.get(request.path)
            if not request.path.endswith(self.path):
                return Said(404, {"detail": "Not Found"})
            return self.scored(request.body, model)

        return answer

    def scored(self, body: dict[str, Any], model: RerankWeights) -> Said:
        if self.documents not in body:  # in another server's words
            return Said(422, {"detail": [{"type": "missing", "loc": ["body", self.documents], "msg": "Field required"}]})
        if (refusal := self.check(body)) is not None:
            return refusal
        query, documents = _text(body["query"]), [_text(each) for each in body[self.documents]]
        is_long = any(len(query.split()) + len(each.split()) > self.reads for each in documents)
        is_cut = self.too_long is None or self.cuts(body)
        if is_long and self.too_long is not None and not is_cut:
            return self.too_long
        reading = RerankWeights(**{**vars(model), "limit": min(model.limit or self.reads, self.reads)}) if is_cut else model
        scores = [self.score(body, logit) for logit in reading.logits(query, documents)]
        ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])
        most = body.get("top_n") or body.get("top_k") or len(ranked)
        said = self.reply(body, ranked[:most], pair_tokens(query, documents))
        said.headers |= self.headers
        return said


def _text(value: Any) -> str:
    return value["text"] if isinstance(value, dict) else value


def _probability(_: dict[str, Any], logit: float) -> float:
    return sigmoid(logit)


def _raw_if_asked(body: dict[str, Any], logit: float) -> float:
    return logit if body.get("raw_scores") else sigmoid(logit)


def _without_activation(body: dict[str, Any], logit: float) -> float:
    return logit if body.get("use_activation") is False else sigmoid(logit)


def _tei_reply(_: dict[str, Any], ranked: list[tuple[int, float]], num_tokens: int) -> Said:
    return Said(body=[{"index": index, "score": score} for index, score in ranked], headers={"x-compute-tokens": str(num_tokens)})


def _results(ranked: list[tuple[int, float]], **more: Any) -> list[dict[str, Any]]:
    return [{"index": index, "relevance_score": score, **more} for index, score in ranked]


def _with_documents(body: dict[str, Any], ranked: list[tuple[int, float]]) -> list[dict[str, Any]]:
    return [{**result, "document": {"text": body["documents"][result["index"]]}} for result in _results(ranked)]


def _llama_reply(body: dict[str, Any], ranked: list[tuple[int, float]], num_tokens: int) -> Said:
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return Said(body={"model": body["model"], "object": "list", "usage": usage, "results": _results(ranked)})


def _infinity_reply(body: dict[str, Any], ranked: list[tuple[int, float]], _: int) -> Said:
    """Counts characters as tokens."""
    num = sum(len(body["query"]) + len(each) for each in body["documents"])
    usage = {"prompt_tokens": num, "total_tokens": num}
    return Said(body={"object": "rerank", "results": _results(ranked, document=None), "model": body["model"], "usage": usage})


def _vllm_reply(body: dict[str, Any], ranked: list[tuple[int, float]], num_tokens: int) -> Said:
    return Said(
        body={
            "id": "rerank-1",
            "model": body["model"],
            "usage": {"total_tokens": num_tokens},
            "results": _with_documents(body, ranked),
        }
    )


def _cohere_reply(_: dict[str, Any], ranked: list[tuple[int, float]], __: int) -> Said:
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    return Said(body={"id": "07734bd2", "results": _results(ranked), "meta": meta})


def _jina_reply(body: dict[str, Any], ranked: list[tuple[int, float]], num_tokens: int) -> Said:
    results = _results(ranked) if body.get("return_documents") is False else _with_documents(body, ranked)
    return Said(body={"model": body["model"], "object": "list", "usage": {"total_tokens": num_tokens}, "results": results})


def _voyage_reply(body: dict[str, Any], ranked: list[tuple[int, float]], num_tokens: int) -> Said:
    return Said(body={"object": "list", "data": _results(ranked), "model": body["model"], "usage": {"total_tokens": num_tokens}})


def _nim_reply(_: dict[str, Any], ranked: list[tuple[int, float]], num_tokens: int) -> Said:
    rankings = [{"index": index, "logit": score} for index, score in ranked]
    return Said(body={"rankings": rankings, "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens}})


def _mixedbread_reply(body: dict[str, Any], ranked: list[tuple[int, float]], num_tokens: int) -> Said:
    data = [{"index": index, "score": score, "input": None, "object": "rank_result"} for index, score in ranked]
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return Said(body={"usage": usage, "model": body["model"], "data": data, "object": "list", "top_k": len(data)})


def _at_most(num: int, refusal: Callable[[int], Said], documents: str = "documents") -> Fault:
    return lambda body: refusal(len(body[documents])) if len(body[documents]) > num else None


def _knows(fields: str, refusal: Callable[[str], Said], then: Fault = lambda _: None) -> Fault:
    known = set(fields.split())
    return lambda body: refusal(min(other)) if (other := set(body) - known) else then(body)


def _of_query(body: dict[str, Any]) -> Said | None:
    """Cohere's and Voyage's limits of a query, in words; the numbers are the stand-in's own."""
    return Said(400, {"detail": "The query has too many tokens."}) if len(body["query"].split()) > 200 else None


def _voyage_check(body: dict[str, Any]) -> Said | None:
    if len(body["documents"]) > 1000:
        return Said(400, {"detail": f"The number of documents cannot exceed 1000, you sent {len(body['documents'])}."})
    return _of_query(body) if body.get("truncation") is False else None


TEI = RerankServer(
    "TEI",
    _tei_reply,
    _raw_if_asked,
    documents="texts",
    check=_at_most(32, lambda num: tei_error(422, f"batch size {num} > maximum allowed batch size 32", "Validation"), "texts"),
    too_long=tei_error(422, "Input validation error: `inputs` must have less than 512 tokens. Given: 1204", "Validation"),
    get=lambda path: Said(body=TEI_INFO | {"model_type": RERANKER, "version": "1.9.3"}) if path == "/info" else Said(404),
)
LLAMA = RerankServer(
    "llama.cpp",
    _llama_reply,
    lambda _, logit: logit,
    too_long=Said(
        500,
        {
            "error": {
                "code": 500,
                "message": "input (1204 tokens) is too large to process. increase the physical batch size",
                "type": "server_error",
            }
        },
    ),
)
INFINITY = RerankServer("infinity", _infinity_reply, _raw_if_asked)
VLLM = RerankServer(
    "vLLM",
    _vllm_reply,
    _without_activation,
    too_long=Said(
        400,
        {
            "error": {
                "message": "This model's maximum context length is 512 tokens. However, you requested 1204 tokens in the input.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            }
        },
    ),
)
COHERE = RerankServer(
    "Cohere",
    _cohere_reply,
    _probability,
    check=_knows(
        "model query documents top_n max_tokens_per_doc priority",
        lambda name: Said(422, {"id": "44558cc5", "message": f"unknown field: parameter '{name}' is not a valid field."}),
        _at_most(10_000, lambda num: Said(400, {"message": f"invalid request: {num} documents are too many"})),
    ),
)
JINA = RerankServer("Jina", _jina_reply, _probability)
VOYAGE = RerankServer(
    "Voyage",
    _voyage_reply,
    _probability,
    check=_knows(
        "model query documents top_k return_documents truncation",
        lambda name: Said(400, {"detail": f"Argument '{name}' is not supported by our API"}),
        _voyage_check,
    ),
    too_long=Said(400, {"detail": "The query and document 1 have too many tokens and do not fit into the model's context window."}),
    cuts=lambda body: body.get("truncation") is not False,
)
GATEWAY = RerankServer(
    "another gateway", _llama_reply, _raw_if_asked, headers={"x-gateway-fingerprint": "0a1b2c3d4e5f.cpu-float32"},
    too_long=Said(
        400,
        {
            "error": {
                "message": "Invalid 'documents[1]': maximum input length is 512 tokens. The maximum context length is 512 tokens.",
                "type": "invalid_request_error",
                "param": "documents",
                "code": "context_length_exceeded",
            }
        },
    ),
)  # fmt: skip
NIM = RerankServer(
    "NVIDIA NIM",
    _nim_reply,
    lambda _, logit: logit,
    path="/ranking",
    documents="passages",
    check=_at_most(512, lambda num: Said(400, {"error": f"passages: at most 512, not {num}"}), "passages"),
    too_long=Said(400, {"error": "Input length 1204 exceeds maximum allowed token size 512"}),
    cuts=lambda body: body.get("truncate") == "END",
)
NIM_HOSTED = replace(NIM, name="NVIDIA, hosted", path="/reranking")
MIXEDBREAD = RerankServer("Mixedbread", _mixedbread_reply, _probability, path="/reranking", documents="input")
DASHSCOPE = RerankServer(
    "DashScope", _jina_reply, _probability, path="/reranks",
    check=_at_most(500, lambda num: Said(400, {"code": "InvalidParameter", "message": f"documents: at most 500, not {num}"})),
)  # fmt: skip
SERVERS = {
    each.name: each for each in (TEI, VLLM, COHERE, JINA, INFINITY, LLAMA, VOYAGE, GATEWAY, NIM, NIM_HOSTED, MIXEDBREAD, DASHSCOPE)
}
