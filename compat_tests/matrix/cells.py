"""The rows, the columns, and what a client cannot do. A cell without a reason here is a test: `test_cell[client-column]`."""

from dataclasses import dataclass, field

COLUMNS = (
    "string",
    "list",
    "token ids",
    "base64",
    "float",
    "dimensions",
    "Unicode",
    "401",
    "404",
    "400",
    "429 then 200",
    "slow answer",
)

TEXTS_ONLY = "its texts are texts: it has no way to hand over token ids"
ALWAYS_FLOAT = "it always asks for float, and has no setting for it"
ALWAYS_BASE64 = "it always lets openai-python ask for base64, and has no setting for it"

OPENAI_ERRORS = {
    "401": "AuthenticationError",
    "404": "NotFoundError",
    "400": "BadRequestError",
    "slow answer": "APITimeoutError",
}
NODE_ERRORS = {**OPENAI_ERRORS, "slow answer": "APIConnectionTimeoutError"}


@dataclass(frozen=True, slots=True)
class Client:
    """`program` is a module of clients/, or with `is_node` a script of ../node/; `package` is whose version the table shows.

    `errors` are the classes it raises. `tokenises`: it sends token ids where it is given texts. `newline` is what it sends for one.
    """

    name: str
    title: str
    program: str
    package: str = ""
    is_node: bool = False
    errors: dict[str, str] = field(default_factory=lambda: OPENAI_ERRORS)
    cannot: dict[str, str] = field(default_factory=dict)
    tokenises: bool = False
    newline: str = "\n"

    def can(self, column: str) -> bool:
        return column not in self.cannot

    def sends(self, text: str) -> str:
        return text.replace("\n", self.newline)


CLIENTS = (
    Client("openai_python", "openai-python", "openai_python", "openai"),
    Client("langchain_openai", "langchain-openai", "langchain", "langchain-openai", tokenises=True),
    Client(
        "llama_index",
        "LlamaIndex",
        "llama_index",
        "llama-index-embeddings-openai",
        cannot={"token ids": TEXTS_ONLY},
        newline=" ",
    ),
    Client(
        "haystack",
        "Haystack",
        "haystack",
        "haystack-ai",
        cannot={"token ids": TEXTS_ONLY, "base64": ALWAYS_FLOAT},
    ),
    Client("litellm", "LiteLLM", "lite_llm", "litellm", errors={**OPENAI_ERRORS, "slow answer": "Timeout"}),
    Client(
        "chroma",
        "Chroma's OpenAI function",
        "chroma",
        "chromadb",
        cannot={
            "string": "it takes a list of documents",
            "token ids": TEXTS_ONLY,
            "float": ALWAYS_BASE64,
            "slow answer": "it has no setting for a timeout; openai-python's own is ten minutes",
        },
    ),
    Client("azure", "openai-python's Azure client", "azure", "openai"),
    Client("openai_node", "openai-node 6", "openai.mjs", "openai", is_node=True, errors=NODE_ERRORS),
    Client(
        "langchain_js",
        "LangChain.js",
        "langchain.mjs",
        "@langchain/openai",
        is_node=True,
        errors={**OPENAI_ERRORS, "slow answer": "TimeoutError"},
        cannot={"token ids": TEXTS_ONLY},
        newline=" ",
    ),
    Client(
        "ai_sdk",
        "Vercel AI SDK",
        "ai.mjs",
        "ai",
        is_node=True,
        errors={**dict.fromkeys(("401", "404", "400"), "APICallError"), "slow answer": "TimeoutError"},
        cannot={"token ids": TEXTS_ONLY, "base64": ALWAYS_FLOAT},
    ),
    Client(
        "curl",
        "curl",
        "curl",
        errors={**dict.fromkeys(("401", "404", "400"), "HTTPError"), "slow answer": "OperationTimedOut"},
    ),
)

CELLS = [(client, column) for client in CLIENTS for column in COLUMNS if client.can(column)]


def cell_id(client: Client, column: str) -> str:
    return f"{client.name}-{column.replace(' ', '_')}"
