"""deploy/examples/many-models.toml with the addresses of this machine, and a gateway that serves it: four models, four origins."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.matrix.upstream import Upstream, infinity, missing_infinity, ollama
from compat_tests.process import ROOT, Gateway
from compat_tests.truth import PYTHON, Vectors

EXAMPLE = ROOT / "deploy/examples/many-models.toml"
MINILM = "all-MiniLM-L6-v2"
MULTILINGUAL = "paraphrase-multilingual-MiniLM-L12-v2"
ON_INFINITY = "bge-small-en-v1.5"  # MiniLM's weights stand in for bge-small's, which a test cannot download
ON_OLLAMA = "mxbai-embed-large"
NAMES = (MINILM, MULTILINGUAL, ON_INFINITY, ON_OLLAMA)
MINILMS_SOURCE = 'source = "sentence-transformers/all-MiniLM-L6-v2"\n'  # its source, and not one of its names
ALIAS = "text-embedding-3-large"  # of the multilingual model: some clients know `dimensions` only of models with such a name
TEXTS = [
    "请问最近的火车站在哪里？",
    "أين تقع أقرب محطة قطار من هنا؟",
    "सबसे नज़दीकी रेलवे स्टेशन कहाँ है?",
    "🙂👍🏽🇫🇷 👩‍👩‍👧 🚆🌧️",
    "Meeting um 9 Uhr 在北京 — कल मिलते हैं، إن شاء الله 🙂 ok?",
    "一番近い駅はどこですか。 Где вокзал? ที่ไหน",
]


@dataclass(frozen=True, slots=True)
class Four:
    """`upstreams` are those that run; `multilingual` is what sentence-transformers makes of TEXTS with that model."""

    gateway: Gateway
    upstreams: dict[str, Upstream]
    multilingual: Vectors


@contextmanager
def served(folder: Path) -> Iterator[Four]:
    """Where infinity is missing, its row waits for a first request, and the other three are served."""
    with ExitStack() as stack:
        upstreams = {ON_OLLAMA: ollama(folder, ON_OLLAMA)}
        if missing_infinity() is None:
            upstreams[ON_INFINITY] = infinity(folder, "BAAI/bge-small-en-v1.5")
        for upstream in upstreams.values():
            stack.callback(upstream.kill)
            upstream.start()
        source, vectors = small_multilingual(folder / "multilingual")
        gateway = Gateway(folder, GATEWAY_API_KEYS=ENVIRONMENT_KEY, GATEWAY_CONFIG=str(folder / "many-models.toml"))
        del gateway.environment["GATEWAY__MODELS"]
        (folder / "many-models.toml").write_text(configuration(source, upstreams), encoding="utf-8")
        stack.enter_context(running(gateway))  # ready means that both upstreams have answered it
        yield Four(gateway, upstreams, vectors)
        gateway.stop()
    assert "internal_error" not in gateway.log
    assert "Traceback" not in gateway.log


def configuration(multilingual: str, upstreams: dict[str, Upstream]) -> str:
    """The example's text. In float32 the local models' vectors are sentence-transformers' own."""
    away = 'url = "http://127.0.0.1:9/v1"\nload = "first_use"'
    changes = {
        MINILMS_SOURCE: f'{MINILMS_SOURCE}precision = "float32"\n',
        f'source = "sentence-transformers/{MULTILINGUAL}"': f'source = {json.dumps(multilingual)}\nprecision = "float32"',
        '"multilingual"]': f'"multilingual", "{ALIAS}"]',
        'url = "http://127.0.0.1:7997/v1"': f'url = "{upstreams[ON_INFINITY].url}/v1"' if ON_INFINITY in upstreams else away,
        'url = "http://127.0.0.1:11434"': f'url = "{upstreams[ON_OLLAMA].url}"',
    }
    text = EXAMPLE.read_text(encoding="utf-8")
    for before, after in changes.items():
        assert text.count(before) == 1, f"{EXAMPLE} does not say {before}"
        text = text.replace(before, after)
    return text


def small_multilingual(folder: Path) -> tuple[str, Vectors]:
    """The folder of a model of that architecture with random weights and no Normalize module, made by the gateway's environment."""
    command: list[Any] = [PYTHON, "-m", "gateway.testing.multilingual", folder]
    made = subprocess.run(command, input=json.dumps(TEXTS), capture_output=True, text=True, cwd=ROOT, timeout=120, check=True)
    told = json.loads(made.stdout)
    return told["source"], np.array(told["vectors"], dtype=np.float32)
