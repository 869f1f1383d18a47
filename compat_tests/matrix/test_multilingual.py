"""Every client, in every form it has, with the multilingual model: Chinese, Arabic, Hindi, emoji and all of them in one text.

The model is a small one of the same architecture with random weights, made on the spot by the gateway's own environment. It has no
Normalize module, so that its vectors are unit-length because the gateway makes them so.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tiktoken

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.matrix.cells import CLIENTS, Client
from compat_tests.matrix.conftest import ProgramOf
from compat_tests.matrix.program import Refusal
from compat_tests.process import ROOT, Gateway
from compat_tests.truth import PYTHON, assert_close, shortened

NAME = "paraphrase-multilingual-MiniLM-L12-v2"
ALIAS = "text-embedding-3-small"  # some clients know `dimensions` only of models with such a name
FEWER = 16
TEXTS = [
    "请问最近的火车站在哪里？",
    "أين تقع أقرب محطة قطار من هنا؟",
    "सबसे नज़दीकी रेलवे स्टेशन कहाँ है?",
    "🙂👍🏽🇫🇷 👩‍👩‍👧 🚆🌧️",
    "Meeting um 9 Uhr 在北京 — कल मिलते हैं، إن شاء الله 🙂 ok?",
    "一番近い駅はどこですか。 Где вокзал? ที่ไหน",
]
FORMS = ("string", "list", "token ids", "base64", "float", "dimensions")
CELLS = [(client, form) for client in CLIENTS for form in FORMS if client.can(form)]


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway with the model, and what sentence-transformers made of TEXTS."""

    gateway: Gateway
    vectors: Any
    num_tokens: list[int]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("multilingual")
    command = [PYTHON, "-m", "gateway.tests.multilingual", folder]
    made = subprocess.run(command, input=json.dumps(TEXTS), capture_output=True, text=True, cwd=ROOT, timeout=120, check=True)
    truth = json.loads(made.stdout)
    row = {"name": NAME, "aliases": [ALIAS], "source": truth["source"], "download": False, "precision": "float32"}
    settings = {"GATEWAY_API_KEYS": ENVIRONMENT_KEY, "GATEWAY__MODELS": json.dumps([row])}
    with running(Gateway(tmp_path_factory.mktemp("gateway"), **settings)) as gateway:
        yield Served(gateway, np.array(truth["vectors"], dtype=np.float32), truth["num_tokens"])
        gateway.stop()


@pytest.mark.parametrize(("client", "form"), CELLS, ids=[f"{client.name}-{form.replace(' ', '_')}" for client, form in CELLS])
def test_every_client_gets_the_models_vectors_in_every_form(
    client: Client, form: str, program_of: ProgramOf, served: Served
) -> None:
    ids = [tiktoken.get_encoding("cl100k_base").encode(text) for text in TEXTS]
    inputs: list[Any] = {"string": TEXTS, "token ids": TEXTS if client.tokenises else ids}.get(form, [TEXTS])
    options: dict[str, Any] = {"base64": {"encoding_format": "base64"}, "float": {"encoding_format": "float"}}.get(form, {})
    if form == "token ids":
        inputs = [inputs]
    if form == "dimensions":
        options = {"dimensions": FEWER}
    rows: list[list[float]] = []
    for given in inputs:
        answer = program_of(client).ask(
            base_url=served.gateway.base_url, key=ENVIRONMENT_KEY, model=ALIAS, input=given, options=options
        )
        assert not isinstance(answer, Refusal), answer
        rows += answer
    assert_close(rows, shortened(served.vectors, FEWER) if form == "dimensions" else served.vectors)
    assert_close(np.linalg.norm(np.array(rows), axis=1), np.ones(len(TEXTS)))
