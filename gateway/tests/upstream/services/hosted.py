"""Services that are somebody else's: what each says, with where it was read. No service was asked; the words are shortened.

What no source shows is marked as assumed: the shape is then that of the service's other errors, and nothing rests on its words.
"""

from gateway.testing.upstream_server import Said, openai_error
from gateway.tests.upstream.services.standin import Service


def google(status, word, *details):
    """ai.google.dev's OpenAI endpoint puts a list around google.rpc.Status: google-gemini/gemini-cli#15005."""
    return Said(status, [{"error": {"code": status, "message": "no", "status": word, "details": list(details)}}])


def about(kind, **fields):
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


GEMINI = Service(
    "Gemini",
    "https://generativelanguage.googleapis.com/v1beta/openai",
    too_long=None,  # not documented (discuss.ai.google.dev, topic 190649): the worse case is assumed
    # cequence-io/openai-scala-client#109
    wrong_key=google(
        400, "INVALID_ARGUMENT", about("ErrorInfo", reason="API_KEY_INVALID"), about("LocalizedMessage", locale="en-US")
    ),
    busy=google(429, "RESOURCE_EXHAUSTED", about("QuotaFailure"), about("RetryInfo", retryDelay="41s")),
    busy_seconds=41,
    max_inputs=100,  # geldata/gel#9032
    too_many=lambda _: google(400, "INVALID_ARGUMENT"),
    bytes_are=google(400, "INVALID_ARGUMENT"),  # RooCodeInc/Roo-Code#7761
    fields=frozenset({"dimensions"}),
    leaves_out_zero=True,  # samfoy/pi-session-search#13
    usage=lambda _: None,
)
AZURE = Service(
    "Azure OpenAI",
    "https://NAME.openai.azure.com/openai/deployments/DEPLOYMENT",
    # microsoft/PubSec-Info-Assistant#755
    too_long=openai_error(400, "This model's maximum context length is 8192 tokens, however you requested 155434 tokens"),
    # microsoft/kernel-memory#325
    wrong_key=Said(
        401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}}
    ),
    busy=Said(429, {"error": {"code": "429", "message": "Please retry after 38 seconds."}}, {"Retry-After": "38"}),
    busy_seconds=38,
    max_inputs=2048,  # learn.microsoft.com, how-to/embeddings
    too_many=lambda _: openai_error(400, "'$.input' is invalid. Please check the API reference"),  # openai-php/client#171
    key_header="api-key",
    query={"api-version": "2024-10-21"},
)


def mistral(message, code="3210"):
    body = {"object": "error", "message": message, "type": "invalid_request_prompt", "param": None, "code": code}
    return Said(400, body)


MISTRAL = Service(
    "Mistral",
    "https://api.mistral.ai/v1",
    too_long=mistral("Input is too long: its number of tokens exceeds the model's limit of 8192"),  # assumed
    wrong_key=Said(401, {"detail": "Unauthorized"}),  # agent0ai/agent-zero#539
    busy=Said(
        429, {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"}
    ),  # assumed
    max_inputs=512,  # raphaelmansuy/edgequake-llm#74
    too_many=lambda _: mistral("Too many inputs in request, split into more batches."),
    max_request_tokens=16_384,  # aurelio-labs/semantic-router#297, chroma-core/chroma#5597
    too_many_tokens=mistral("Too many tokens overall, split into more batches."),
    fields=frozenset({"output_dimension", "output_dtype", "metadata"}),  # docs.mistral.ai/api/endpoint/embeddings
    refuses_field=lambda name: Said(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "not permitted"}]}),
)
VOYAGE = Service(
    "Voyage",
    "https://api.voyageai.com/v1",
    too_long=Said(400, {"detail": "The example at index 0 has too many tokens and does not fit into the model's context window."}),
    wrong_key=Said(401, {"detail": "Provided API key is invalid."}),  # this and the next: words assumed
    busy=Said(429, {"detail": "You have exceeded your rate limits."}),
    max_inputs=1000,  # docs.voyageai.com/reference/embeddings-api
    # 400 for batches and tokens: mongodb.com/docs/voyageai/api-reference/overview
    too_many=lambda count: Said(400, {"detail": f"The batch size limit is 1000. Your batch size is {count}."}),
    max_request_tokens=120_000,  # sigoden/aichat#825
    too_many_tokens=Said(
        400, {"detail": "The max allowed tokens per submitted batch is 120000. Please lower the number of tokens."}
    ),
    fields=frozenset({"input_type", "truncation", "output_dimension", "output_dtype"}),
    # 410979729/scope-recall-hermes#88
    refuses_field=lambda name: Said(400, {"detail": f"Argument '{name}' is not supported by our API"}),
    usage=lambda texts: {"total_tokens": sum(len(text.split()) + 2 for text in texts)},  # typesense/typesense#2080
)
COHERE = Service(
    "Cohere",
    "https://api.cohere.ai/compatibility/v1",
    too_long=None,  # v2/embed: `truncate` is END by default, and the compatibility endpoint has no such field
    wrong_key=Said(401, {"message": "invalid api token"}),  # docs.cohere.com/errors-reference
    busy=Said(429, {"message": "You are past the per minute request limit, please wait and try again later."}),
    max_inputs=96,  # misbahsy/RAGTune#2
    too_many=lambda count: Said(400, {"message": f"invalid request: total number of texts must be at most 96 - received {count}"}),
)
JINA = Service(
    "Jina",
    "https://api.jina.ai/v1",
    # Codes: api.jina.ai/openapi.json; words: pingcap/autoflow#282
    too_long=Said(
        400, {"code": "INPUT_TOKEN_LIMIT_EXCEEDED", "detail": "Single text cannot exceed 8192 tokens. 9237 tokens given."}
    ),
    wrong_key=Said(401, {"code": "AUTH_INVALID_API_KEY", "detail": "Invalid API key"}),
    busy=Said(429, {"code": "RATE_TOKEN_LIMIT_EXCEEDED", "detail": "Token rate limit exceeded"}),
    max_inputs=512,  # langgenius/dify-official-plugins#1997
    too_many=lambda _: Said(400, {"detail": "Validation error: 'body' Each input list can contain at most 512 items."}),
    bytes_are="ignored",
    fields=frozenset({"task", "embedding_type", "dimensions", "truncate", "late_chunking", "normalized"}),
)


def nvidia(status, message):
    return Said(status, {"object": "error", "message": message, "detail": {}, "type": "invalid_request_error"})


NVIDIA = Service(
    "NVIDIA NIM",
    "https://integrate.api.nvidia.com/v1",
    too_long=nvidia(400, "Input length 851 exceeds maximum allowed token size 512"),  # langflow-ai/langflow#9076
    wrong_key=Said(403, {"status": 403, "title": "Forbidden", "detail": "Authorization failed"}),  # dmMaze/BallonsTranslator#1233
    busy=Said(429, {"status": 429, "title": "Too Many Requests"}),  # assumed
    fields=frozenset({"input_type", "truncate", "embedding_type", "modality", "user"}),
    # lobehub/lobehub#11548
    refuses_field=lambda name: nvidia(400, f"Your request cannot be validated: extra_forbidden, {name}"),
    # decolua/9router#1378
    check=lambda body: (
        None
        if body.get("input_type") in {"query", "passage"}
        else nvidia(400, "'input_type' parameter is required for asymmetric models")
    ),
)


def alibaba(message, *, status=400, code="InvalidParameter"):
    return Said(status, {"error": {"message": message, "type": code, "param": None, "code": code}, "request_id": "d0722c3e"})


DASHSCOPE = Service(
    "DashScope",
    "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    too_long=alibaba(
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 8192]"
    ),  # infiniflow/ragflow#589
    wrong_key=alibaba("Incorrect API key provided.", status=401, code="invalid_api_key"),  # Aider-AI/aider#4712
    busy=alibaba("You exceeded your current requests list.", status=429, code="limit_requests"),  # assumed
    max_inputs=10,  # memodb-io/memobase#142
    too_many=lambda _: alibaba(
        "<400> InternalError.Algo.InvalidParameter: batch size is invalid, it should not be larger than 10.: input.contents"
    ),
    bytes_are="ignored",  # help.aliyun.com: encoding_format is float alone
    fields=frozenset({"dimensions"}),
)


def silicon(message, *, status=413, code=20042):
    return Said(status, {"code": code, "message": message, "data": None})


SILICONFLOW = Service(
    "SiliconFlow",
    "https://api.siliconflow.com/v1",
    too_long=silicon("input must have less than 8192 tokens"),  # apecloud/ApeRAG#817
    wrong_key=Said(401, b'"Invalid token"'),  # docs.siliconflow.com: its 401 is a string
    busy=Said(429, {"message": "Request was rejected due to rate limiting.", "data": None}),
    max_inputs=64,  # OpenSPG/KAG#232
    too_many=lambda count: silicon(f"input batch size {count} > maximum allowed batch size 64"),
    fields=frozenset({"dimensions"}),
)
HOSTED = (GEMINI, AZURE, MISTRAL, VOYAGE, COHERE, JINA, NVIDIA, DASHSCOPE, SILICONFLOW)
