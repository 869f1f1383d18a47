"""Every client, in every form it has, with the multilingual model: Chinese, Arabic, Hindi, emoji and all of them in one text.

The model has no Normalize module: its vectors are unit-length because the gateway makes them so.
"""

from typing import Any

import numpy as np
import pytest
import tiktoken

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.matrix.cells import CLIENTS, Client
from compat_tests.matrix.conftest import ProgramOf
from compat_tests.matrix.four import ALIAS, TEXTS, Four
from compat_tests.matrix.program import Refusal
from compat_tests.truth import assert_close, shortened

FEWER = 16
FORMS = ("string", "list", "token ids", "base64", "float", "dimensions")
CELLS = [(client, form) for client in CLIENTS for form in FORMS if client.can(form)]


@pytest.mark.parametrize(("client", "form"), CELLS, ids=[f"{client.name}-{form.replace(' ', '_')}" for client, form in CELLS])
def test_every_client_gets_the_models_vectors_in_every_form(client: Client, form: str, program_of: ProgramOf, four: Four) -> None:
    ids = [tiktoken.get_encoding("cl100k_base").encode(text) for text in TEXTS]
    inputs: list[Any] = {"string": TEXTS, "token ids": [TEXTS if client.tokenises else ids]}.get(form, [TEXTS])
    options: dict[str, Any] = {"base64": {"encoding_format": "base64"}, "float": {"encoding_format": "float"}}.get(form, {})
    if form == "dimensions":
        options = {"dimensions": FEWER}
    rows: list[list[float]] = []
    for given in inputs:
        answer = program_of(client).ask(
            base_url=four.gateway.base_url, key=ENVIRONMENT_KEY, model=ALIAS, input=given, options=options
        )
        assert not isinstance(answer, Refusal), answer
        rows += answer
    assert_close(rows, shortened(four.multilingual, FEWER) if form == "dimensions" else four.multilingual)
    assert_close(np.linalg.norm(np.array(rows), axis=1), np.ones(len(TEXTS)))
