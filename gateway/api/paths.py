"""Path rewriting: the paths that clients really send, each to its one route. In process, as a redirect loses the body or the key.

//v1//embeddings/                          /v1/embeddings
/embeddings, /models/x, /files, /batches   /v1/…
/v1/v1/models                              /v1/models                (n8n)
/v1/v2/embed, /v2/v2/embed                 /v2/embed                 (Cohere's clients, whose base URL has no version)
/reranking, /v1/reranking                  /rerank, /v1/rerank       (llama.cpp's other name)
/openai/deployments/{model}/embeddings     /v1/embeddings, model from the path (Azure; models with slashes too)
/openai/models, /openai/v1/embeddings      /v1/…
/models/embeddings                         /v1/embeddings            (Azure AI Inference, whose endpoint ends in /models)
/models/info, /v1/info                     /info
/tei/{model}/embed, /tei/{model}           /embed, /invocations, model from the path (TEI's clients, whose server has one model)
"""

import re
from dataclasses import dataclass

SLASHES = re.compile(r"/{2,}")
DOUBLED_VERSION = re.compile(r"^(/v1)+(?=/)")
OTHER_VERSION = re.compile(r"^(?:/v[12])+(?=/v2/)")
RERANKING = re.compile(r"^(/v1)?/reranking$")
WITHOUT_VERSION = re.compile(r"^/(?:openai/)?(?=(?:embeddings|models|files|batches)(?:/|$))")
AZURE_VERSION = re.compile(r"^/openai(?=/v1/)")
EXACT = {"/models/embeddings": "/v1/embeddings", "/models/info": "/info", "/v1/info": "/info"}
TEI_MODEL = re.compile(
    r"^/tei/(?P<model>.+?)(?P<path>/(?:embed|embed_all|embed_sparse|similarity|rerank|predict|tokenize|decode|info|vertex|invocations"
    r"|health|v1/embeddings|embeddings))?$"
)
AZURE_DEPLOYMENT = re.compile(r"^/openai/deployments/(?P<model>.+)/embeddings$")


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """The route of a request. `model` is the one that its path names, or None; `is_tei`: as the path of a server of TEI's."""

    path: str
    model: str | None = None
    is_tei: bool = False


def target_of(sent: str, *, has_tei: bool = True) -> RequestTarget:
    """Returns the route for a path. `sent` is the path as ASGI gives it: percent-decoded, without the query.

    Unless `has_tei`, no path below /tei/ means another.
    """
    path = SLASHES.sub("/", sent)
    path = path.rstrip("/") or "/"
    if deployment := AZURE_DEPLOYMENT.match(path):
        return RequestTarget("/v1/embeddings", deployment["model"])
    if has_tei and (tei := TEI_MODEL.match(path)):
        return RequestTarget(target_of(tei["path"] or "/invocations").path, tei["model"], is_tei=True)
    if exact := EXACT.get(path):
        return RequestTarget(exact)
    path = AZURE_VERSION.sub("", path)
    path = WITHOUT_VERSION.sub("/v1/", path)
    path = OTHER_VERSION.sub("", path)
    path = DOUBLED_VERSION.sub("/v1", path)
    return RequestTarget(RERANKING.sub(r"\1/rerank", path))
