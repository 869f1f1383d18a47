"""Servers that people run themselves. Those that could be started were recorded; the others' sources were read."""

from gateway.testing.upstream_server import TEI_INFO, Said, tei_error
from gateway.tests.upstream.services.standin import READ_WORDS, Service


def llama(status, message, kind):
    """Recorded of llama.cpp's server, build 11434."""
    return Said(status, {"error": {"code": status, "message": message, "type": kind}})


LLAMA_MODELS = Said(
    body={
        "object": "list",
        "data": [
            {"id": "nomic.gguf", "object": "model", "created": 1, "meta": {"n_vocab": 30522, "n_ctx_train": 512, "n_embd": 384}}
        ],
    }
)
LLAMA = Service(
    "llama.cpp",
    "http://127.0.0.1:8080/v1",
    too_long=llama(
        500,
        "input (1202 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
        "server_error",
    ),
    wrong_key=llama(401, "Invalid API Key", "authentication_error"),
    busy=llama(503, "Loading model", "unavailable_error"),  # tools/server/server.cpp of ggml-org/llama.cpp
    get=lambda path: LLAMA_MODELS if path == "/models" else llama(404, "File Not Found", "not_found_error"),
)
LM_STUDIO = Service(
    "LM Studio",
    "http://127.0.0.1:1234/v1",
    too_long=None,  # not documented: the worse case is assumed
    wrong_key=None,
    busy=Said(429),
    bytes_are="ignored",  # lmstudio-ai/lmstudio-bug-tracker#756
    usage=lambda _: {"prompt_tokens": 0, "total_tokens": 0},
)
NO_MODEL_LOADED = Said(400, {"error": "No models loaded. Please load a model in the developer page or use the 'lms load' command."})


def vllm(status, message, kind="BadRequestError"):
    """ErrorResponse of vllm/entrypoints/openai/protocol.py, as versions before 0.11 have it: infiniflow/ragflow#4683."""
    return Said(status, {"object": "error", "message": message, "type": kind, "param": None, "code": status})


def newer(said):
    """ErrorInfo within ErrorResponse, as later versions have it."""
    return Said(said.status, {"error": {name: value for name, value in said.body.items() if name != "object"}})


VLLM = Service(
    "vLLM",
    "http://127.0.0.1:8000/v1",
    too_long=vllm(400, "This model's maximum context length is 512 tokens. However, you requested 1084 tokens in the input."),
    wrong_key=Said(401, {"error": "Unauthorized"}),  # AuthenticationMiddleware of api_server.py
    busy=Said(429),  # it queues; what stands before it may say so
    get=lambda _: Said(
        body={"object": "list", "data": [{"id": "BAAI/bge-m3", "object": "model", "root": "BAAI/bge-m3", "max_model_len": 512}]}
    ),
)
INFINITY = Service(
    "infinity",
    "http://127.0.0.1:7997/v1",
    too_long=None,  # recorded of 0.0.78: 200
    wrong_key=Said(401, {"detail": "Unauthorized"}, {"www-authenticate": "Bearer"}),
    busy=Said(429),  # it queues; what stands before it may say so
    max_inputs=2048,
    too_many=lambda count: Said(
        422,
        {
            "detail": [
                {
                    "type": "too_long",
                    "loc": ["body", "text", "input", "list[constrained-str]"],
                    "msg": f"List should have at most 2048 items after validation, not {count}",
                    "input": ["a", "a"],
                    "ctx": {"field_type": "List", "max_length": 2048, "actual_length": count},
                }
            ]
        },
    ),
    usage=lambda texts: dict.fromkeys(("prompt_tokens", "total_tokens"), sum(map(len, texts))),
)
TEI = Service(
    "TEI",
    "http://127.0.0.1:8080",
    # All recorded of 1.9.3, but for the overload: router/src/http/server.rs
    too_long=tei_error(422, "Input validation error: `inputs` must have less than 256 tokens. Given: 1202", "Validation"),
    wrong_key=Said(401),
    busy=tei_error(429, "Model is overloaded", "Overloaded"),
    protocol="tei",
    max_inputs=32,
    too_many=lambda count: tei_error(422, f"batch size {count} > maximum allowed batch size 32", "Validation"),
    get=lambda path: Said(body=TEI_INFO | {"max_input_length": READ_WORDS, "version": "1.9.3"}) if path == "/info" else Said(404),
)
OLLAMA = Service(
    "Ollama",
    "http://127.0.0.1:11434",
    too_long=Said(400, {"error": "the input length exceeds the context length"}),  # nano-step/nano-brain#208
    wrong_key=None,
    busy=Said(503, {"error": "server busy, please try again.  maximum pending requests exceeded"}),  # server/sched.go
    protocol="ollama",
    get=lambda _: Said(
        body={"models": [{"name": "nomic-embed-text:latest", "model": "nomic-embed-text:latest", "digest": "0a109f42"}]}
    ),
)
LOCAL = (LLAMA, LM_STUDIO, VLLM, INFINITY, TEI, OLLAMA)
