"""Every server that is measured, told once: how it is started, with its defaults unless a measure says otherwise.

In the words of a command and of its environment `{port}`, `{folder}` and `{model}`, the folder of the weights, are filled in.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

HOST = "127.0.0.1"
KEY = "benchmark-key-of-24-characters-or-more"
OTHER_KEY = "another-key-of-24-characters-or-more"
FRESH_KEYS = tuple(f"newcomers-key-{number:02}-of-24-or-more" for number in range(60))
MODEL = "all-MiniLM-L6-v2"
HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
PEERS_BIN = HERE.parent / ".venv-peers" / "bin"


@dataclass(frozen=True)
class Program:
    """`ready_path` answers 200 once texts can be embedded."""

    name: str
    command: tuple[str, ...]
    ready_path: str
    environment: Mapping[str, str]

    def configured(self, **environment: str) -> "Program":
        return replace(self, environment={**self.environment, **environment})

    def with_redis(self, url: str) -> "Program":
        return replace(self, environment={name: value.replace("{redis}", url) for name, value in self.environment.items()})

    def filled(self, **words: str) -> "Program":
        """With words for the names in braces."""

        def fill(text: str) -> str:
            for name, word in words.items():
                text = text.replace(f"{{{name}}}", word)
            return text

        environment = {name: fill(value) for name, value in self.environment.items()}
        return replace(self, command=tuple(map(fill, self.command)), environment=environment)


CACHED = Program(
    "gateway",
    (str(BIN / "gateway"), "serve"),
    "/readyz",
    {
        "GATEWAY_API_KEYS": ",".join([KEY, OTHER_KEY, *FRESH_KEYS]),
        "GATEWAY_DATA_DIR": "{folder}/data",
        "GATEWAY__SERVER__HOST": HOST,
        "GATEWAY__SERVER__PORT": "{port}",
    },
)
GATEWAY = CACHED.configured(GATEWAY__CACHE__MAX_BYTES="0")  # a text known already would be no work
OPEN = CACHED.configured(GATEWAY__AUTH="none", GATEWAY_API_KEYS="")
LIMITED = CACHED.configured(  # so high that nobody is refused
    GATEWAY__LIMITS__REQUESTS_PER_MINUTE="100000000",
    GATEWAY__LIMITS__TOKENS_PER_MINUTE="100000000",
    GATEWAY__LIMITS__MAX_CONCURRENT_REQUESTS="1000",
)
RATE_LIMITED = CACHED.configured(  # the same, without a queue for each key
    GATEWAY__LIMITS__REQUESTS_PER_MINUTE="100000000", GATEWAY__LIMITS__TOKENS_PER_MINUTE="100000000"
)
SHARED = LIMITED.configured(GATEWAY__LIMITS__REDIS_URL='{"env": "BENCH_REDIS_URL"}', BENCH_REDIS_URL="{redis}")
FLOAT32_ROW = {"name": MODEL, "source": f"sentence-transformers/{MODEL}", "download": False, "precision": "float32"}
FLOAT32 = GATEWAY.configured(GATEWAY__MODELS=json.dumps([FLOAT32_ROW]))

STANDIN = Program("stand-in", (sys.executable, "-m", "benchmarks.standin", "{port}"), "/health", {"PYTHONPATH": str(HERE.parent)})


def before(url: str) -> Program:
    """A gateway whose one model is on another server. It has no cache."""
    return GATEWAY.configured(GATEWAY__MODELS=json.dumps([{"name": MODEL, "backend": "openai", "url": f"{url}/v1"}]))


MANY_MODELS = (MODEL, *(f"model-{number}" for number in range(1, 20)))
MANY_KEYS = (KEY, *(f"benchmark-key-{number:03}-of-24-or-more" for number in range(1, 100)))


def crowded(url: str) -> Program:
    """A gateway of MANY_MODELS, all on another server, for MANY_KEYS."""
    rows = [{"name": name, "backend": "openai", "url": f"{url}/v1"} for name in MANY_MODELS]
    return GATEWAY.configured(GATEWAY__MODELS=json.dumps(rows), GATEWAY_API_KEYS=",".join(MANY_KEYS))


INFINITY = Program(
    "infinity",
    (
        str(PEERS_BIN / "infinity_emb"), "v2", "--model-id", "{model}", "--served-model-name", MODEL,
        "--host", HOST, "--port", "{port}", "--url-prefix", "/v1", "--api-key", KEY,
    ),
    "/health",
    {"DO_NOT_TRACK": "1"},
)  # fmt: skip
TUTORIAL = Program(
    "fastapi, def",
    (str(PEERS_BIN / "uvicorn"), "--app-dir", str(HERE), "--host", HOST, "--port", "{port}", "tutorial_server:app"),
    "/health",
    {"MODEL_FOLDER": "{model}"},
)
ASYNC_TUTORIAL = replace(TUTORIAL, name="fastapi, async def", command=(*TUTORIAL.command[:-1], "tutorial_server:async_app"))
