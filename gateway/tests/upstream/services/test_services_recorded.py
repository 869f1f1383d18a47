"""What TEI 1.9.3, llama.cpp's server (build 11434) and infinity 0.0.78 really answered, case by case, and what becomes of it."""

from dataclasses import replace

import numpy as np
import pytest

from gateway.errors import InputTooLong, OperatorError
from gateway.testing.upstream_server import TEI_INFO, Said, Standin, tei_error
from gateway.tests.upstream.conftest import embedded, over, started
from gateway.tests.upstream.services.local import TEI, llama
from gateway.tests.upstream.services.standin import answering, reply_of, vectors

RECORDED = Said(body=[{"index": 0, "embedding": [[-0.03446101024746895, 0.030893685296177864, 0.006724506616592407]]}])
PAYLOAD_LIMIT = Said(
    413, b"Failed to buffer the request body: length limit exceeded", {"content-type": "text/plain; charset=utf-8"}
)
LONG = "river stone paper " * 400


def infinity(message):
    return Said(400, {"error": {"message": message, "type": None, "param": None, "code": 400}})


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            llama(501, "This server does not support embeddings. Start it with `--embeddings`", "not_supported_error"),
            r"failed with the status 501 \(not_supported_error\)",
        ),
        (
            llama(400, "Pooling type 'none' is not OAI compatible. Please use a different pooling type", "invalid_request_error"),
            r"refused the request with the status 400 \(invalid_request_error\)",
        ),
        (llama(404, "File Not Found", "not_found_error"), r"or nothing at this address \(not_found_error\)"),
        (RECORDED, "its reply is not what this protocol says"),  # llama.cpp's /embeddings, without /v1
        (infinity("Invalid model: Engine for model name `nobody` not found."), "refused the request with the status 400"),
        (
            infinity("ModelNotDeployedError: model=`cross-encoder` does not support `embed`"),
            "refused the request with the status 400",
        ),
        (Said(404, {"detail": "Not Found"}), "or nothing at this address"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value.status),
)
async def test_a_server_that_was_not_started_for_it_is_told_to_the_operator(said, told):
    with pytest.raises(OperatorError, match=told):
        async with over("openai", lambda request: said if request.method == "POST" else Said(404)):
            pass


async def test_a_reranker_behind_tei_is_told_to_the_operator():
    info = TEI_INFO | {"model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}}
    refused = tei_error(424, "Backend error: Model is not an embedding model", "Backend")
    with pytest.raises(OperatorError, match="by its /info the model there is no embedder"):
        async with over("tei", lambda request: Said(body=info) if request.method == "GET" else refused):
            pass


def at_v1(request):
    """TEI's OpenAI door: no /models, and errors of another shape than its own protocol's."""
    if request.method == "GET":
        return Said(404)
    texts = request.body["input"]
    if len(texts) > 32:
        return Said(422, {"message": f"batch size {len(texts)} > maximum allowed batch size 32", "code": 422, "type": "Validation"})
    if any(len(text.split()) > 256 for text in texts):
        message = "Input validation error: `inputs` must have less than 256 tokens. Given: 1202"
        return Said(422, {"message": message, "code": 422, "type": "Validation"})
    return reply_of(replace(TEI, protocol="openai"), request.body)


async def test_tei_s_openai_door_is_understood_too():
    texts = [f"text number {index}" for index in range(70)]
    async with over("openai", at_v1) as (server, remote):
        np.testing.assert_allclose((await embedded(remote, *texts)).rows, vectors(texts), atol=1e-5)
        assert remote.health().learned == {"max_inputs": 32}
        server.requests.clear()
        await embedded(remote, *texts)
        assert [len(request.body["input"]) for request in server.requests] == [32, 32, 6]
        with pytest.raises(InputTooLong, match=r"'input\[1\]': maximum input length is 256 tokens"):
            await embedded(remote, "a", LONG, "b")


async def test_tei_s_payload_limit_is_learned_from_its_plain_text():
    answer = answering(TEI, None)
    texts = [f"text number {index} ".ljust(400, "x") for index in range(30)]
    async with Standin(answer).serving() as server, started("tei", server) as remote:
        server.answer = lambda request: PAYLOAD_LIMIT if len(request.content) > 5000 else answer(request)
        np.testing.assert_allclose((await embedded(remote, *texts)).rows, vectors(texts), atol=1e-5)
        assert set(remote.health().learned) == {"max_body_bytes"}
        server.requests.clear()
        await embedded(remote, *texts)
        assert all(len(request.content) <= 5000 for request in server.requests)
