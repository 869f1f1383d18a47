"""Fields of other servers' APIs, over HTTP: an error names the field that the client sent, wherever it is found out."""

import pytest

from gateway.config import ModelRow
from gateway.testing import upstream_server as standin
from gateway.testing.upstream_server import Standin
from gateway.tests.api.conftest import KEY, client_of
from gateway.upstream.backend import UPSTREAM_BACKENDS

REFUSED_BY_THE_MODEL = {
    "long_input": "end", "truncate": "END", "truncation": True, "truncate_prompt_tokens": -1,
    "normalize": False, "normalized": False, "use_activation": False, "embd_normalize": -1,
    "dimensions": 9999, "output_dimension": 9999, "output_dimensionality": 9999.0,
    "input_type": "poem", "prompt_name": "poem", "task": "poem", "task_type": "poem", "text_type": "poem",
}  # fmt: skip


async def test_what_a_model_on_another_server_cannot_do_is_refused_by_the_clients_own_name_for_it(make):
    async with Standin(standin.openai).serving() as server:
        row = ModelRow(name="m", backend="openai", settings={"url": server.url, "model": "theirs"})
        gateway = make(models=(row,), backends=UPSTREAM_BACKENDS)
        await gateway.start()
        await gateway.load()
        async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
            for field, value in REFUSED_BY_THE_MODEL.items():
                reply = await client.post("/v1/embeddings", json={"model": "m", "input": "a", field: value})
                error = reply.json()["error"]
                assert (reply.status_code, error["param"]) == (400, field)
                assert error["message"].startswith(f"Invalid value for '{field}': ")
        await gateway.close()


@pytest.mark.parametrize("field", ["truncate_prompt_tokens", "output_dimension", "messages", "task", "truncate"])
@pytest.mark.parametrize("value", ["1e400", "-1e400", "1e999999999"])
async def test_a_number_that_no_float_holds_is_refused_by_name(client, field, value):
    reply = await client.post("/v1/embeddings", content=f'{{"model": "m", "input": "a", "{field}": {value}}}')
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)
